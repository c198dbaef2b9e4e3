"""Input of a direct convolution of one tap: its pixels, put together tile by tile.

A tile's channels lie one after the other, so that the kernel reads memory from front to back.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_direct import DirectLayout
from .direct_input import emit_direct_input

Runs = list[tuple[int, int, int]]


def emit_direct_tiles(
    data: Any,
    staging: Any,
    scratch: Any,
    layout: DirectLayout,
    runs: Runs,
    image: Any,
    channel: Any,
    count: Any,
    row: Any,
) -> None:
    """Emit the copy of ``count`` channels from ``channel`` on.

    Args:
        data: buffer [N, C, H, W].
        staging: buffer of one channel's rows, where strides and padding are taken apart.
        scratch: buffer laid out by ``layout``.
        layout: memory layout.
        runs: the panel's tiles, see :func:`tvm_sparsewino.geometry.register_tiles`.
        image: image of the batch.
        channel: first input channel.
        count: number of channels.
        row: first output row of the panel.
    """
    with T.serial(0, count) as c:
        if not layout.from_map:
            emit_direct_input(data, staging, layout, image, channel + c, 1, row)
        for first, tiles, width in runs:
            with T.serial(0, tiles) as tile:
                vector = first + tile * width
                start = tvm_ir.bind(vector * layout.vector_stride + c * (width * layout.lanes))
                for i in range(width):
                    to = start + i * layout.lanes
                    if layout.from_map:
                        _copy(data, scratch, layout, [image, channel + c, row], vector + i, to)
                    else:
                        source = tvm_ir.ramp((vector + i) * layout.lanes, 1, layout.lanes)
                        _store(scratch, to, staging[source], layout.lanes)


def _copy(
    data: Any, scratch: Any, layout: DirectLayout, index: list[Any], vector: Any, to: Any
) -> None:
    """One vector of the map's pixels; those beyond its end are zeros."""
    shape, lanes = layout.shape, layout.lanes
    # Rows of the map are contiguous: x runs on past the end of the panel's first.
    x = tvm_ir.bind(vector * lanes)
    left = tvm_ir.bind((shape.h - index[-1]) * shape.w - x)

    def whole() -> None:
        _store(scratch, to, data[(*index, tvm_ir.ramp(x, 1, lanes))], lanes)

    if shape.h % layout.rows == 0 and layout.rows * shape.w % lanes == 0:
        whole()  # panels are whole vectors, all of them in the map
        return
    with T.If(left >= lanes):
        with T.Then():
            whole()
        with T.Else():
            _store(scratch, to, tvm_ir.broadcast(0.0, lanes), lanes)
            with T.serial(0, tir.max(left, 0)) as t:
                _store(scratch, to + t, data[(*index, x + t)], 1)


def _store(scratch: Any, to: Any, value: Any, width: int) -> None:
    T.buffer_store(scratch, value, [tvm_ir.ramp(to, 1, width)])
