"""One tile of the sparse direct convolution: some output channels x vectors of output pixels.

Lanes are pixels and every tap is an offset, so an unstructured nonzero costs one broadcast and, per
vector of pixels, one multiply-add with its input read straight from memory. Several output channels
are walked together: their sums are independent chains, and they share the load of their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import ceil_div
from ..geometry_sparse import SparseLayout, Tile
from .epilogue import EpilogueOperands
from .splat import load_offsets, load_splats
from .wide import wide


@dataclass(frozen=True)
class Work:
    """What one task does with one block of input channels.

    Attributes:
        layout: memory layout.
        tile: what is in registers at a time.
        data: buffer [N, C, H, W].
        packed: buffers starts, rows, offsets, values (see :mod:`tvm_sparsewino.packing_sparse`).
        source: function of an index, whole or vector, that reads the inputs: from the scratch, or
            from the map.
        partial: sums of the channels so far, for each tile those of ``k_block`` output channels and
            one more that takes what rows without one compute.
        tail: scratch of one tile's sums, for lines that are shorter than a vector.
        output: buffer [N, K, OH, OW].
        epilogue: what follows the convolution, with its buffers.
        image: image of the batch.
        block: block of output channels, counted through the groups.
        part: which block of input channels.
        first_input: its first channel.
        start: first output row, or pixel where inputs are read in place.
    """

    layout: SparseLayout
    tile: Tile
    data: Any
    packed: Sequence[Any]
    source: Any
    partial: Any
    tail: Any
    output: Any
    epilogue: EpilogueOperands
    image: Any
    block: Any
    part: Any
    first_input: Any
    start: Any

    @property
    def first_output(self) -> Any:
        """The first output channel of the block."""
        layout = self.layout
        group, block = self.block // layout.k_blocks, self.block % layout.k_blocks
        return group * layout.per_group + block * layout.k_block

    @property
    def is_last(self) -> Any:
        """Whether no block of input channels follows."""
        return self.part == self.layout.channel_blocks - 1


def slice_number(work: Work, index: Any) -> Any:
    """The place of slice ``index`` of the block among all slices that are packed."""
    layout = work.layout
    blocks = work.block * layout.channel_blocks + work.part
    return tvm_ir.bind(blocks * layout.slices + index)


def slice_members(work: Work, number: Any) -> list[Any]:
    """The output channels of slice ``number``, counted from their block's first."""
    _, rows, _, _ = work.packed
    width = work.layout.rows_at_once
    return [tvm_ir.bind(rows[number * width + row]) for row in range(width)]


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
                _write(work, taken, member, (y, x), places)

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
    with T.serial(0, wide(starts[number + 1]) - first) as step:
        here = tvm_ir.bind((first + step) * width)
        splats = load_splats(values, here, width, lanes)
        pairs = zip(splats, load_offsets(offsets, here, width), strict=True)
        for row, (value, offset) in enumerate(pairs):
            start = tvm_ir.bind(offset + base)
            for i, (dy, dx) in enumerate(places):
                place = start + (dy * layout.row_stride + dx)
                product = value * work.source(tvm_ir.ramp(place, 1, lanes))
                T.buffer_store(sums, sums[at(row, i)] + product, [at(row, i)])


def corner(layout: SparseLayout, tile: Tile, number: Any) -> tuple[Any, Any]:
    """Line and pixel of it where a tile begins."""
    if tile.lines:
        return tvm_ir.bind(tir.min(number * tile.lines, layout.lines - tile.lines)), 0
    parts = tile.count // layout.lines
    length = tile.vectors * layout.lanes
    y = tvm_ir.bind(number // parts)
    return y, tvm_ir.bind(tir.min((number - y * parts) * length, layout.reach - length))


def _place(layout: SparseLayout, tile: Tile, i: int) -> tuple[int, int]:
    """Line and pixel of vector ``i`` of a tile, from the tile's corner."""
    lanes = layout.lanes
    if tile.is_buffered or not tile.lines:
        return 0, i * lanes
    line, vector = divmod(i, ceil_div(layout.line, lanes))
    return line, min(vector * lanes, layout.reach - lanes)


def _write(
    work: Work, sums: list[Any], member: Any, corner: tuple[Any, Any], places: list[tuple[int, int]]
) -> None:
    """Store the sums of output channel ``member`` of the block, if there is one."""
    layout = work.layout
    k = tvm_ir.bind(work.first_output + member)
    if layout.all_rows_exist:
        _write_row(work, sums, k, corner, places)
    else:
        with T.If(member < layout.k_block), T.Then():
            _write_row(work, sums, k, corner, places)


def _write_row(
    work: Work, sums: list[Any], k: Any, corner: tuple[Any, Any], places: list[tuple[int, int]]
) -> None:
    layout, lanes, epilogue, (y, x) = work.layout, work.layout.lanes, work.epilogue, corner

    def store(value: Any, dy: Any, dx: Any, width: int) -> None:
        line, pixel = (0, work.start + x) if layout.is_flat else (work.start + y, x)
        pixel = pixel + dx
        if layout.reach > layout.line:
            pixel = tir.min(pixel, work.start + (layout.line - lanes))
        where = [work.image, k, line + dy, tvm_ir.ramp(pixel, 1, width)]
        T.buffer_store(work.output, epilogue.finish(value, where, k, width), where)

    biased = [tvm_ir.bind(epilogue.add_bias(value, k, lanes)) for value in sums]
    if not work.tile.is_buffered:
        for value, (dy, dx) in zip(biased, places, strict=True):
            store(value, dy, dx, lanes)
        return
    for value, (_, dx) in zip(biased, places, strict=True):
        T.buffer_store(work.tail, value, [tvm_ir.ramp(dx, 1, lanes)])
    width = lanes
    while width > layout.line:
        width //= 2
    with T.serial(0, work.tile.lines) as line:
        for first in dict.fromkeys((0, layout.line - width)):
            place = tvm_ir.ramp(line * layout.row_stride + first, 1, width)
            store(work.tail[place], line, first, width)
