"""Sparse GEMM where adjacent output channels share their zeros: one load feeds several rows.

A step is one input channel for all rows of a slice: its vectors are loaded once and multiplied by
every row's value, so ``g`` rows and ``v`` vectors take ``g + v`` loads for ``g * v`` multiply-adds,
where rows with patterns of their own take ``g * (v + 1)``. Accumulators must leave registers for
the smaller of the two operands; panels with more vectors are computed in several parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..config import LayerPlan
from ..geometry import KernelLayout
from ..row_slices import vector_parts
from .blocks import Blocks, each_slice
from .chains import emit_chains, has_long_rows, store_sums
from .wide import wide


def emit_shared_gemm(
    packed: Sequence[Any],
    v: Any,
    product: Any,
    blocks: Blocks,
    plan: LayerPlan,
    layout: KernelLayout,
    vector_registers: int,
) -> None:
    """Emit the products of some blocks of output channels.

    Args:
        packed: buffers starts, rows, offsets, values (see :mod:`tvm_sparsewino.packing_shared`).
        v: scratch of transformed inputs.
        product: scratch of products.
        blocks: the blocks of output channels.
        plan: the layer's plan.
        layout: memory layout.
        vector_registers: registers of the target; bounds the accumulators.
    """
    parts = vector_parts(layout.panels.vectors, plan.rows_at_once, vector_registers)
    lanes = layout.panels.lanes
    with each_slice(layout, blocks) as (coordinate, block, index):
        number = (block * layout.v.coordinates + coordinate) * layout.slices + index
        first = 0
        # One part right after the other: their loops have the same number of steps.
        for count in parts:
            bases = [
                wide(coordinate) * scratch.coordinate_stride + first * lanes
                for scratch in (layout.v, layout.product)
            ]
            sizes = (plan.rows_at_once, count, lanes)
            _emit_part(packed, v, product, number, bases, sizes, has_long_rows(plan))
            first += count


def _emit_part(
    packed: Sequence[Any],
    v: Any,
    product: Any,
    number: Any,
    bases: Sequence[Any],
    sizes: tuple[int, int, int],
    several: bool,
) -> None:
    """One slice over one part of the panel: ``sizes`` are rows, vectors and lanes.

    ``several`` tells whether its steps may be more than a chain.
    """
    starts, rows, offsets, values = packed
    (v_base, product_base), (width, count, lanes) = bases, sizes
    places = [tvm_ir.ramp(i * lanes, 1, lanes) for i in range(width * count)]

    def emit_chain(first: Any, steps: Any, adds: Any) -> None:
        with tvm_ir.local_buffer((width * count * lanes,)) as sums:
            for at in places:
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at])
            with T.serial(0, steps) as step:
                p = tvm_ir.bind(start + first + step if several else start + step)
                base = tvm_ir.bind(wide(offsets[p]) + v_base)
                _emit_step(sums, (values, p * width), (v, base), sizes)
            pairs = []
            for row in range(width):
                base = tvm_ir.bind(wide(rows[number * width + row]) + product_base)
                targets = [tvm_ir.ramp(base + i * lanes, 1, lanes) for i in range(count)]
                pairs += zip(targets, places[row * count :], strict=False)
            store_sums(product, sums, pairs, adds)

    start = tvm_ir.bind(wide(starts[number]))
    emit_chains(wide(starts[number + 1]) - start, several, emit_chain)


def _emit_step(
    sums: Any, weights: tuple[Any, Any], inputs: tuple[Any, Any], sizes: tuple[int, int, int]
) -> None:
    """Every row's value times every vector; both operands are a buffer and where to begin."""
    width, count, lanes = sizes

    def value(row: int) -> Any:
        return tvm_ir.bind(tvm_ir.broadcast(weights[0][weights[1] + row], lanes))

    def vector(i: int) -> Any:
        return tvm_ir.bind(inputs[0][tvm_ir.ramp(inputs[1] + i * lanes, 1, lanes)])

    def add(row: int, i: int, u: Any, x: Any) -> None:
        at = tvm_ir.ramp((row * count + i) * lanes, 1, lanes)
        T.buffer_store(sums, sums[at] + u * x, [at])

    # The shorter operand stays in registers, the longer one passes through.
    if count <= width:
        xs = [vector(i) for i in range(count)]
        for row in range(width):
            u = value(row)
            for i, x in enumerate(xs):
                add(row, i, u, x)
    else:
        us = [value(row) for row in range(width)]
        for i in range(count):
            x = vector(i)
            for row, u in enumerate(us):
                add(row, i, u, x)
