"""Sum long rows in several chains that are added up, because rounding errors grow with length.

A row of 512 products in one chain of float32 additions made the largest error of F(4,3) 2.0e-5 of
the largest output; two chains of 256 make it 1.4e-5. Where a chain ends depends on its row alone,
not on panels, blocks or threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import LayerPlan

CHAIN = 256  # products


def has_long_rows(plan: LayerPlan) -> bool:
    """Whether the rows of a layer's coefficients are longer than a chain, on average."""
    shape = plan.conv
    density = plan.density if plan.algorithm == "sparse_winograd" else 1.0
    return shape.c // shape.groups * density > CHAIN


def emit_chains(steps: Any, several: bool, emit_chain: Callable[[Any, Any, Any], None]) -> None:
    """Emit sums over ``steps`` products.

    Args:
        steps: number of products.
        several: whether they may be more than a chain.
        emit_chain: emits the sums over one chain, given its first product, its number of products,
            and a condition: whether sums of another are there to be added; None for never.
    """
    if not several:
        emit_chain(0, steps, None)
        return
    steps = tvm_ir.bind(steps)
    with T.serial(0, tir.max((steps + (CHAIN - 1)) // CHAIN, 1)) as chain:
        first = tvm_ir.bind(chain * CHAIN)
        emit_chain(first, tvm_ir.bind(tir.min(steps - first, CHAIN)), chain > 0)


def store_sums(target: Any, sums: Any, pairs: list[tuple[Any, Any]], adds: Any) -> None:
    """Emit ``target[to] = sums[of]`` for every pair (to, of), or ``+=`` where ``adds`` holds."""

    def store(added: bool) -> None:
        for to, of in pairs:
            value = sums[of] + target[to] if added else sums[of]
            T.buffer_store(target, value, [to])

    if adds is None:
        store(added=False)
        return
    with T.If(adds):
        with T.Then():
            store(added=True)
        with T.Else():
            store(added=False)
