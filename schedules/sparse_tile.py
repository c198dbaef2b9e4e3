"""One tile of the sparse direct convolution: some output channels x vectors of output pixels.

Lanes are pixels and every tap is an offset, so an unstructured nonzero costs one broadcast and, per
vector of pixels, one multiply-add with its input read straight from memory. Several output channels
are walked together: their sums are independent chains, and they share the load of their values.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..geometry import ceil_div
from ..geometry_sparse import SparseLayout, Tile
from .sparse_store import store_row
from .sparse_work import Work, corner, slice_members, slice_number
from .splat import load_offsets, load_splats
from .weights_ahead import DIRECT_BYTES, prefetch_weights
from .wide import wide


def emit_tile(work: Work, number: Any, index: Any) -> None:
    """Emit slice ``index`` of the output channels for tile ``number`` of the panel.

    The sums start at zero or where the last block of input channels left them; after the last block
    they go through the epilogue into the output.
    """
    layout, tile = work.layout, work.tile
    lanes, width = layout.lanes, layout.rows_at_once
    y, x = corner(layout, tile, number)
    places = [_place(layout, tile, i) for i in range(tile.vectors)]
    every = [(row, i) for row in range(width) for i in range(tile.vectors)]
    several = layout.channel_blocks > 1
    this_slice = slice_number(work, index)
    members = slice_members(work, this_slice)

    def at(row: int, i: int) -> Any:
        return tvm_ir.ramp((row * tile.vectors + i) * lanes, 1, lanes)

    def waiting(row: int, i: int) -> Any:
        place = (number * (layout.k_block + 1) + members[row]) * tile.vectors + i
        return tvm_ir.ramp(place * lanes, 1, lanes)

    with tvm_ir.local_buffer((width * tile.vectors * lanes,)) as sums:

        def begin() -> None:
            for row, i in every:
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at(row, i)])

        def resume() -> None:
            for row, i in every:
                T.buffer_store(sums, work.partial[waiting(row, i)], [at(row, i)])

        def suspend() -> None:
            for row, i in every:
                T.buffer_store(work.partial, sums[at(row, i)], [waiting(row, i)])

        def finish() -> None:
            for row, member in enumerate(members):
                taken = [sums[at(row, i)] for i in range(tile.vectors)]
                store_row(work, taken, member, number, (y, x), places)

        _either(several, work.part == 0, begin, resume)
        base = wide(y * layout.row_stride + x)
        _emit_products(work, this_slice, tvm_ir.bind(base), places, sums, at)
        _either(several, work.is_last, finish, suspend)


def _either(several: bool, condition: Any, then: Any, otherwise: Any) -> None:
    """``then`` where ``condition`` holds, as it does always unless there are several parts."""
    if not several:
        then()
        return
    with T.If(condition):
        with T.Then():
            then()
        with T.Else():
            otherwise()


def _emit_products(
    work: Work, number: Any, base: Any, places: list[tuple[int, int]], sums: Any, at: Any
) -> None:
    """Every nonzero of the rows of slice ``number``."""
    layout = work.layout
    lanes, width = layout.lanes, layout.rows_at_once
    starts, _, offsets, values = work.packed
    first = tvm_ir.bind(wide(starts[number]))
    steps = wide(starts[number + 1]) - first
    if work.asks_ahead:
        prefetch_weights((offsets, values), first * width, steps * width, DIRECT_BYTES)
    with T.serial(0, steps) as step:
        here = tvm_ir.bind((first + step) * width)
        splats = load_splats(values, here, width, lanes)
        pairs = zip(splats, load_offsets(offsets, here, width), strict=True)
        for row, (value, offset) in enumerate(pairs):
            start = tvm_ir.bind(offset + base)
            for i, (dy, dx) in enumerate(places):
                place = start + (dy * layout.row_stride + dx)
                product = value * work.source(tvm_ir.ramp(place, 1, lanes))
                T.buffer_store(sums, sums[at(row, i)] + product, [at(row, i)])


def _place(layout: SparseLayout, tile: Tile, i: int) -> tuple[int, int]:
    """Line and pixel of vector ``i`` of a tile, from the tile's corner."""
    lanes = layout.lanes
    if tile.is_buffered or not tile.lines:
        return 0, i * lanes
    line, vector = divmod(i, ceil_div(layout.line, lanes))
    return line, min(vector * lanes, layout.reach - lanes)
