"""Input of the direct convolution: rows of a panel, with their padding, copied into scratch.

Every load and store lies inside its row, so nothing is read beyond the map and nothing written
twice but equal values: rows are copied by whole vectors, the last one ending where the row ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import ceil_div
from ..geometry_direct import DirectLayout


def emit_direct_input(
    data: Any, scratch: Any, layout: DirectLayout, image: Any, channel: Any, count: Any, row: Any
) -> None:
    """Emit the copy of ``count`` channels from ``channel`` on.

    Args:
        data: buffer [N, C, H, W].
        scratch: buffer laid out by ``layout``.
        layout: memory layout.
        image: image of the batch.
        channel: first input channel.
        count: number of channels.
        row: first output row of the panel.
    """
    shape = layout.shape
    with T.serial(0, count) as c, T.serial(0, layout.phases * layout.phase_rows) as position:
        phase, index = position // layout.phase_rows, position % layout.phase_rows
        y = tvm_ir.bind((row + index) * layout.stride + phase - shape.padding[0])
        base = tvm_ir.bind(c * layout.channel_stride + position * layout.row_stride)
        with T.If(tir.all(y >= 0, y < shape.h)):
            with T.Then():
                for j in range(layout.copies):
                    _emit_row(data, scratch, layout, [image, channel + c, y], j, base)
            with T.Else():
                for j in range(layout.copies):
                    _fill(scratch, base + j * layout.copy_stride, 0, layout.row_stride, layout)


def _emit_row(
    data: Any, scratch: Any, layout: DirectLayout, index: list[Any], j: int, base: Any
) -> None:
    """One row of copy ``j``: zeros, what the map has, zeros."""
    shape, step = layout.shape, layout.stride
    first = (j * layout.dilation if layout.is_flat else 0) - shape.padding[1]
    start = min(ceil_div(max(-first, 0), step), layout.row_stride)
    stop = max(min(ceil_div(shape.w - first, step), layout.row_stride), start)
    base = base + j * layout.copy_stride

    def copy(x: Any, width: int) -> None:
        source = tvm_ir.ramp(first + x * step, step, width)
        value = data[(*index, source)]
        T.buffer_store(scratch, value, [tvm_ir.ramp(base + x, 1, width)])

    _fill(scratch, base, 0, start, layout)
    _cover(start, stop, layout.lanes, copy)
    _fill(scratch, base, stop, layout.row_stride, layout)


def _fill(scratch: Any, base: Any, start: int, stop: int, layout: DirectLayout) -> None:
    """Zeros from ``start`` to ``stop``."""

    def zero(x: Any, width: int) -> None:
        value = tvm_ir.broadcast(0.0, width)
        T.buffer_store(scratch, value, [tvm_ir.ramp(base + x, 1, width)])

    _cover(start, stop, layout.lanes, zero)


def _cover(start: int, stop: int, lanes: int, emit: Callable[[Any, int], None]) -> None:
    """Call ``emit(x, width)`` so that start..stop is covered and nothing else."""
    length = stop - start
    if length >= lanes:
        with T.serial(0, length // lanes) as vector:
            emit(start + vector * lanes, lanes)
        if length % lanes:
            emit(stop - lanes, lanes)
        return
    width = lanes
    while start < stop:
        while start + width > stop:
            width //= 2
        emit(start, width)
        start += width
