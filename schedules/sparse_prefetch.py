"""Prefetch what the sparse direct kernel reads and writes next.

A slice writes a short run of pixels of a few output channels that lie far apart, in the order of
their nonzeros, and reads as much of the map that is added; a tile reads a short run of every input
channel where inputs are read in place. No CPU foresees that, and in a network the maps come from
beyond L2. Asking takes one instruction per cache line. What is read comes into L2 only: L1 is full
of the inputs in use.
"""

from __future__ import annotations

from math import gcd
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import CACHE_LINE, ceil_div
from ..geometry_sparse import SparseLayout, Tile
from .sparse_work import Work, corner, slice_members, slice_number

AHEAD = 2  # slices; 1 where a slice passes several tiles before the next


def prefetch_ahead(work: Work, number: Any, index: Any) -> None:
    """Emit the requests that go out before slice ``index`` for tile ``number`` is computed."""
    if work.layout.window is not None:
        return  # inputs are copied, and outputs stay in L2 until they are pooled
    if work.layout.channel_blocks == 1:
        _prefetch_outputs(work, number, index)
    else:
        with T.If(work.is_last), T.Then():
            _prefetch_outputs(work, number, index)
    if work.layout.in_place:
        _prefetch_inputs(work, number, index)


def _prefetch_outputs(work: Work, number: Any, index: Any) -> None:
    """What a later slice writes of the same tile, and the map that it adds."""
    layout, tile = work.layout, work.tile
    ahead = 1 if layout.slices_outside and tile.count > 1 else AHEAD
    if layout.slices <= ahead:
        return
    later = slice_number(work, tir.min(index + ahead, layout.slices - 1))
    y, x = corner(layout, tile, number)
    first = work.start + x if layout.is_flat else (work.start + y) * layout.shape.ow + x
    first = tvm_ir.bind(first)
    run = tile.lines * layout.line if tile.lines else tile.vectors * layout.lanes
    for member in slice_members(work, later):
        k = tvm_ir.bind(work.first_output + member)
        for line in range(line_count(run, layout, tile)):
            place = (work.image, k, 0, first + line * CACHE_LINE)
            tvm_ir.prefetch(work.output, place, write=True)
            if work.epilogue.residual is not None:
                tvm_ir.prefetch(work.epilogue.residual, place, level=2)


def _prefetch_inputs(work: Work, number: Any, index: Any) -> None:
    """A slice's share of what the next tile reads; that of the next panel where slices come first.

    Behind the last tile of all this asks for lines that nobody needs.
    """
    layout, tile = work.layout, work.tile
    run = tile.vectors * layout.lanes
    _, x = corner(layout, tile, number)
    first = tvm_ir.bind(work.start + x + (layout.rows if layout.slices_outside else run))
    lines = line_count(run, layout, tile)
    share = ceil_div(layout.channel_block * lines, layout.slices)
    with T.serial(0, share) as request:
        line = tvm_ir.bind(index * share + request)
        channel = work.first_input + line // lines
        place = (work.image, channel, 0, first + line % lines * CACHE_LINE)
        tvm_ir.prefetch(work.data, place, level=2)


def line_count(run: int, layout: SparseLayout, tile: Tile) -> int:
    """Cache lines that ``run`` pixels of a tile may touch; maps begin with a line."""
    shape, length = layout.shape, tile.vectors * layout.lanes
    starts = [CACHE_LINE, shape.oh * shape.ow, length, layout.line]
    starts += [layout.rows, layout.total_rows] if layout.is_flat else [shape.ow]
    return ceil_div(run + CACHE_LINE - gcd(*starts), CACHE_LINE)
