"""Prefetch the rows of the map that a panel reads or writes next.

A panel touches a few rows of every channel: too few lines in a row for the CPU to foresee them.
Asking takes one instruction per cache line, spread over the vectors of the channel before.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import tir
from ..config import ConvShape
from ..geometry import CACHE_LINE, Panels, ceil_div
from ..geometry_pooling import OutputMap
from .segments import first_tile


def prefetch_inputs(
    data: Any, shape: ConvShape, panels: Panels, panel: Any, channel: Any, vector: Any
) -> None:
    """Emit one vector's share of the requests for the rows that ``panel`` reads of ``channel``.

    Args:
        data: buffer [N, C, H, W].
        shape: the convolution.
        panels: the cut into panels.
        panel: index of the panel.
        channel: the input channel; it need not exist.
        vector: the vector of the panel with which the requests go out.
    """
    image, y, x = _corner(panels, panel, panels.m)
    top, left = shape.padding[0], shape.padding[1]
    corner = [image, channel, tir.max(y - top, 0), tir.max(x - left, 0)]
    rows = min((panels.rows - 1) * panels.m + panels.alpha, shape.h)
    span = shape.w if panels.segments == 1 else panels.segment_tiles * panels.m
    _prefetch(data, corner, rows, (shape.h, shape.w), span, panels, vector, write=False)


def prefetch_outputs(
    output: Any,
    written: OutputMap,
    panels: Panels,
    panel: Any,
    k: Any,
    vector: Any,
    write: bool = True,
) -> None:
    """The same for the rows that ``panel`` writes of output channel ``k``.

    Without ``write``, for those of a map as large as the output that is added to it.
    """
    image, y, x = _corner(panels, panel, written.step)
    rows = min(panels.rows * written.step, written.height)
    span = written.width if panels.segments == 1 else panels.segment_tiles * written.step
    corner = [image, k, y, x]
    size = (written.height, written.width)
    _prefetch(output, corner, rows, size, span, panels, vector, write)


def _corner(panels: Panels, panel: Any, step: int) -> tuple[Any, Any, Any]:
    """Image, y and x where a panel begins, tiles being ``step`` apart."""
    number, _ = first_tile(panels, panel)
    row, index_in_row = number // panels.segments, number % panels.segments
    x = index_in_row * (panels.segment_tiles * step)
    return row // panels.tiles_y, row % panels.tiles_y * step, x


def _prefetch(
    buffer: Any,
    corner: list[Any],
    rows: int,
    size: tuple[int, int],
    span: int,
    panels: Panels,
    vector: Any,
    write: bool,
) -> None:
    """Nothing behind the map's last row: that is the next channel, which others may be writing.

    A line that two cores want to write goes to and fro between them.
    """
    image, channel, y, x = corner
    height, width = size
    left = tvm_ir.bind(tir.min(height - y, rows))
    if span == width:  # rows follow each other in memory
        lines = ceil_div(rows * width, CACHE_LINE)
        last = left * width - 1
    else:
        lines = ceil_div(span, CACHE_LINE) * rows
        last = left - 1
    share = ceil_div(lines, panels.vectors)
    for number in range(share):
        line = vector * share + number
        if span == width:
            at = [image, channel, y, tir.min(line * CACHE_LINE, last)]
        else:
            row, column = line // ceil_div(span, CACHE_LINE), line % ceil_div(span, CACHE_LINE)
            at = [image, channel, y + tir.min(row, last), x + column * CACHE_LINE]
        tvm_ir.prefetch(buffer, tuple(at), write)
