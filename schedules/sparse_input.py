"""Input of the sparse direct convolution: rows of a panel, with zeros, taken apart by stride."""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_sparse import SparseLayout
from .copied_rows import emit_copy, emit_zeros


def emit_sparse_input(
    data: Any, scratch: Any, layout: SparseLayout, image: Any, first: Any, count: Any, row: Any
) -> None:
    """Emit the copy of some channels.

    Args:
        data: buffer [N, C, H, W].
        scratch: buffer laid out by ``layout``.
        layout: memory layout.
        image: image of the batch.
        first: first input channel.
        count: number of channels.
        row: first output row of the panel.
    """
    axis, shape = layout.vertical, layout.shape
    columns = len(layout.horizontal.phases)
    with T.serial(0, count) as c:
        for number, phase in enumerate(axis.phases):
            plane = tvm_ir.bind(c * layout.channel_stride + number * columns * layout.plane_stride)
            with T.serial(0, layout.phase_rows) as q:
                y = tvm_ir.bind((row + q) * axis.stride + phase - axis.before)
                base = tvm_ir.bind(plane + q * layout.row_stride)
                with T.If(tir.all(y >= 0, y < shape.h)):
                    with T.Then():
                        for x in range(columns):
                            _emit_row(data, scratch, layout, [image, first + c, y], x, base)
                    with T.Else():
                        for x in range(columns):
                            start = base + x * layout.plane_stride
                            emit_zeros(scratch, start, 0, layout.row_stride, layout.lanes)
            _fill_ends(scratch, layout, plane)


def _fill_ends(scratch: Any, layout: SparseLayout, plane: Any) -> None:
    """Zeros behind the last row of every plane of a row of phases."""
    axis, end = layout.horizontal, layout.phase_rows * layout.row_stride
    for x in range(len(axis.phases)):
        beyond = axis.span(x) - layout.row_stride
        emit_zeros(scratch, plane + x * layout.plane_stride, end, end + beyond, layout.lanes)


def _emit_row(
    data: Any, scratch: Any, layout: SparseLayout, index: list[Any], phase: int, base: Any
) -> None:
    """One row of the map into one phase: zeros, what the map has, zeros."""
    row, lanes = layout.horizontal.row(phase), layout.lanes
    at = base + phase * layout.plane_stride
    emit_zeros(scratch, at, 0, row.start, lanes)
    emit_copy(data, index, scratch, at, row, lanes)
    emit_zeros(scratch, at, row.stop, layout.row_stride, lanes)
