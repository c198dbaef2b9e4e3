"""Partial vectors: the last vector of a row, of which only the first lanes are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T


def emit_tail(value: Any, lanes: int, width: int, store: Callable[[Any, int, int], None]) -> None:
    """Call ``store(part, first, lanes of the part)`` for the first ``width`` lanes of ``value``.

    Parts are powers of two. A loop over single lanes instead is unrolled by LLVM, which then makes
    one piece of scalar code per lane of it.
    """
    done, part = 0, lanes
    while done < width:
        while part > width - done:
            part //= 2
        piece = value if part == lanes else tvm_ir.shuffle([value], range(done, done + part))
        store(piece, done, part)
        done += part


def emit_counted_tail(
    value: Any, lanes: int, width: Any, store: Callable[[Any, Any, int], None]
) -> None:
    """The same for a ``width`` below ``lanes`` that only the kernel knows."""
    with tvm_ir.scratch((lanes,)) as parts:
        T.buffer_store(parts, value, [tvm_ir.ramp(0, 1, lanes)])
        part = lanes // 2
        while part:
            with T.If(width // part % 2 == 1), T.Then():
                first = tvm_ir.bind(width // (2 * part) * (2 * part))
                store(parts[tvm_ir.ramp(first, 1, part)], first, part)
            part //= 2
