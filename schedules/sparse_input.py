"""Input of the sparse direct convolution: rows of a panel, taken apart by stride, with their zeros.

Every load lies inside its row of the map, so nothing beyond the map is read; stores may overlap,
with equal values. A row that is taken apart is loaded in whole vectors and shuffled.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_sparse import SparseLayout


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
                            _fill(scratch, start, 0, layout.row_stride, layout.lanes)
            _fill_ends(scratch, layout, plane)


def _fill_ends(scratch: Any, layout: SparseLayout, plane: Any) -> None:
    """Zeros behind the last row of every plane of a row of phases."""
    axis, end = layout.horizontal, layout.phase_rows * layout.row_stride
    for x in range(len(axis.phases)):
        beyond = axis.span(x) - layout.row_stride
        _fill(scratch, plane + x * layout.plane_stride, end, end + beyond, layout.lanes)


def _emit_row(
    data: Any, scratch: Any, layout: SparseLayout, index: list[Any], phase: int, base: Any
) -> None:
    """One row of the map into one phase: zeros, what the map has, zeros."""
    axis, lanes = layout.horizontal, layout.lanes
    start, stop = axis.filled(phase)
    base = base + phase * layout.plane_stride

    def copy(place: Any, width: int, at_end: bool) -> None:
        source = axis.source(phase, place)
        if axis.stride == 1:
            value = data[(*index, tvm_ir.ramp(source, 1, width))]
        else:
            value = _strided(data, index, source, axis.stride, width, axis.size, at_end)
        T.buffer_store(scratch, value, [tvm_ir.ramp(base + place, 1, width)])

    _fill(scratch, base, 0, start, lanes)
    _cover(start, stop, lanes, copy)
    _fill(scratch, base, stop, layout.row_stride, lanes)


def _strided(
    data: Any, index: list[Any], source: Any, stride: int, width: int, size: int, at_end: bool
) -> Any:
    """Every ``stride``-th number of a row from ``source`` on, ``width`` of them.

    Args:
        data: buffer [N, C, H, W].
        index: image, channel and row.
        source: the first number's place.
        stride: from one to the next.
        width: how many.
        size: numbers of the row.
        at_end: whether a whole window from ``source`` on might reach beyond the row; ``source`` is
            then a constant.
    """
    window = stride * width
    if width == 1 or size < window:
        return data[(*index, tvm_ir.ramp(source, stride, width))]
    skipped = max(source + window - size, 0) if at_end else 0
    parts = [
        data[(*index, tvm_ir.ramp(source - skipped + i * width, 1, width))] for i in range(stride)
    ]
    return tvm_ir.shuffle(parts, [skipped + i * stride for i in range(width)])


def _fill(scratch: Any, base: Any, start: int, stop: int, lanes: int) -> None:
    """Zeros from ``start`` to ``stop``."""

    def zero(place: Any, width: int, _at_end: bool) -> None:
        value = tvm_ir.broadcast(0.0, width)
        T.buffer_store(scratch, value, [tvm_ir.ramp(base + place, 1, width)])

    _cover(start, stop, lanes, zero)


def _cover(start: int, stop: int, lanes: int, emit: Any) -> None:
    """Call ``emit(place, width, at_end)`` so that start..stop is covered and nothing else.

    All but the last pieces are vectors in a loop; the last ones have constant places.
    """
    length = stop - start
    if length <= 0:
        return
    width = lanes
    while width > length:
        width //= 2
    whole = length // width - 1
    if whole > 1:
        with T.serial(0, whole) as vector:
            emit(start + vector * width, width, False)
    elif whole == 1:
        emit(start, width, False)
    if length % width:
        emit(start + whole * width, width, True)
    emit(stop - width, width, True)
