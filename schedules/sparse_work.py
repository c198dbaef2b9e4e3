"""What one task of the sparse direct convolution works on, and where it finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import tir
from ..geometry_sparse import SparseLayout, Tile
from .epilogue import EpilogueOperands


@dataclass(frozen=True)
class Work:
    """What one task does with one block of input channels.

    Attributes:
        layout: memory layout.
        tile: what is in registers at a time.
        asks_ahead: whether weights are asked for early (:mod:`.weights_ahead`).
        data: buffer [N, C, H, W].
        packed: buffers starts, rows, offsets, values (see :mod:`tvm_sparsewino.packing_sparse`).
        source: function of an index, whole or vector, that reads the inputs: from the scratch, or
            from the map.
        partial: sums of the channels so far, for each tile those of ``k_block`` output channels and
            one more that takes what rows without one compute.
        tail: scratch of one tile's sums, for lines that are shorter than a vector.
        output: buffer [N, K, OH, OW]; of rows that wait for a pool [1, k_block, slots, OW].
        epilogue: what follows the convolution, with its buffers.
        image: image of the batch.
        block: block of output channels, counted through the groups.
        part: which block of input channels.
        first_input: its first channel.
        start: first output row, or pixel of a flat layout; of rows that wait for a pool the slot.
        again: rows or pixels, from ``start`` on, that the panel before computes as well.
    """

    layout: SparseLayout
    tile: Tile
    asks_ahead: bool
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
    again: Any

    @property
    def first_output(self) -> Any:
        """The first output channel of the block."""
        layout = self.layout
        group, block = self.block // layout.k_blocks, self.block % layout.k_blocks
        return group * layout.per_group + block * layout.k_block

    def stored_channel(self, member: Any, k: Any) -> Any:
        """Where output channel ``k``, the ``member``-th of its block, lies in the output."""
        return k if self.layout.window is None else member

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


def corner(layout: SparseLayout, tile: Tile, number: Any) -> tuple[Any, Any]:
    """Line and pixel of it where a tile begins."""
    if tile.lines:
        return tvm_ir.bind(tir.min(number * tile.lines, layout.lines - tile.lines)), 0
    parts = tile.count // layout.lines
    length = tile.vectors * layout.lanes
    y = tvm_ir.bind(number // parts)
    return y, tvm_ir.bind(tir.min((number - y * parts) * length, layout.reach - length))
