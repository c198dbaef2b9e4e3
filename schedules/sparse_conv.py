"""Sparse direct convolution: any filter, stride, dilation, padding and groups, without transforms.

The method of Park et al. (Faster CNNs with Direct Sparse Convolutions and Guided Pruning, ICLR
2017) and of Escort (Chen, 2018), with output pixels as vector lanes.

Tasks run in parallel; none reads what another writes, so results do not depend on the number of
threads. A task computes a block of output channels of one panel. Block by block of input channels
it copies the panel's rows (:mod:`.sparse_input`) or pixels (:mod:`.sparse_runs`), if they cannot be
read in place, then, tile by tile, runs through its output channels: what a tile reads stays in L1,
the weights stream past it. Where all of the panel stays there the loops are the other way round, so
that the output is written in long runs. Sums of a block of input channels wait in scratch for the
next. The last panel of an image is moved back to end with it: the rows it shares with the one
before get the same values from both, or from one where that matters (:mod:`.sparse_store`).

Where a pool follows, a task computes all panels of an image and block of output channels one after
the other, into memory that stays in L2, and pools each (:mod:`.sparse_pool`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_sparse import SparseLayout, register_tile
from .epilogue import EpilogueOperands
from .sparse_input import emit_sparse_input
from .sparse_pool import emit_above, emit_pool
from .sparse_prefetch import prefetch_ahead
from .sparse_runs import emit_runs
from .sparse_tile import emit_tile
from .sparse_work import Work
from .thinned_map import thinned_map
from .weights_ahead import asks_ahead
from .wide import wide


def emit_sparse_conv(
    data: Any,
    packed: Sequence[Any],
    output: Any,
    layout: SparseLayout,
    epilogue: EpilogueOperands,
    vector_registers: int,
) -> None:
    """Emit the whole convolution.

    Args:
        data: buffer [N, C, H, W].
        packed: buffers starts, rows, offsets, values, see :mod:`tvm_sparsewino.packing_sparse`.
        output: buffer [N, K, OH, OW], or of the pooled map.
        layout: memory layout.
        epilogue: what follows the convolution, with its buffers.
        vector_registers: registers of the target; bounds the sums.
    """
    blocks, panels = layout.shape.groups * layout.k_blocks, layout.panels // layout.turns
    tile, lanes = register_tile(layout, vector_registers), layout.lanes
    tile_size, ahead = tile.vectors * lanes, asks_ahead(vector_registers, lanes)
    sums_size = tile.count * (layout.k_block + 1) * tile_size
    with (
        thinned_map(data, layout) as read,
        T.parallel(0, layout.tasks) as task,
        tvm_ir.scratch((max(layout.scratch_size, lanes),)) as scratch,
        tvm_ir.scratch((sums_size if layout.channel_blocks > 1 else lanes,)) as partial,
        tvm_ir.scratch((tile_size,)) as tail,
    ):
        block = tvm_ir.bind(task // panels % blocks)
        image = tvm_ir.bind(task // (panels * blocks))

        def emit_panel(
            start: Any, again: Any, to: Any, place: tuple[Any, Any], after: EpilogueOperands
        ) -> None:
            inputs = _inputs(read, scratch, layout, (image, block, start))
            with inputs as (part, first, source):
                buffers = (read, packed, source, partial, tail, to)
                where = (place[0], block, part, first, place[1], again)
                _emit_tiles(Work(layout, tile, ahead, *buffers, after, *where))

        if layout.window is not None:
            _emit_pooled(emit_panel, output, layout, epilogue, (image, block))
            return
        first_row = task % panels * layout.rows
        start = tvm_ir.bind(tir.min(first_row, layout.total_rows - layout.rows))
        again = tvm_ir.bind(first_row - start)
        emit_panel(start, again, output, (image, start), epilogue)


def _emit_pooled(
    emit_panel: Callable[..., None],
    output: Any,
    layout: SparseLayout,
    epilogue: EpilogueOperands,
    task: tuple[Any, Any],
) -> None:
    """All panels of a task, one after the other, each with its pool."""
    before, after = epilogue.around_maximum
    rows, zero = layout.pooled, tir.const(0, "int32")
    with (
        tvm_ir.scratch((layout.staged_size,)) as staged,
        tvm_ir.view(staged, (1, layout.k_block, rows.slots, layout.shape.ow)) as to,
    ):
        emit_above(staged, layout)
        with T.serial(0, layout.panels) as panel:
            start = tvm_ir.bind(panel * layout.rows)
            emit_panel(start, zero, to, (zero, tir.const(rows.kept, "int32")), before)
            emit_pool(staged, output, layout, after, task, panel)


@contextmanager
def _inputs(
    read: Any, scratch: Any, layout: SparseLayout, place: tuple[Any, Any, Any]
) -> Iterator[tuple[Any, Any, Any]]:
    """The loop over blocks of input channels: a block's index, its first channel, and a function
    that reads its inputs, copied or not. ``place``: image, block of output channels, first row.
    """
    image, block, start = place
    with T.serial(0, layout.channel_blocks) as part:
        channel = tvm_ir.bind(part * layout.channel_block)
        count = tvm_ir.bind(tir.min(layout.channel_block, layout.channels - channel))
        first = tvm_ir.bind(block // layout.k_blocks * layout.channels + channel)
        if layout.in_place:
            source = _in_place(read, layout, image, first, start)
        elif layout.kind == "runs":
            emit_runs(read, scratch, layout, (image, first, count, start))
            source = scratch.__getitem__
        else:
            emit_sparse_input(read, scratch, layout, image, first, count, start)
            source = scratch.__getitem__
        yield part, first, source


def _emit_tiles(work: Work) -> None:
    """Every tile of a task for every slice; see the module's text for the order."""
    layout, tile = work.layout, work.tile
    if layout.slices_outside:
        with T.serial(0, layout.slices) as index, T.serial(0, tile.count) as number:
            prefetch_ahead(work, number, index)
            emit_tile(work, number, index)
    else:
        with T.serial(0, tile.count) as number, T.serial(0, layout.slices) as index:
            prefetch_ahead(work, number, index)
            emit_tile(work, number, index)


def _in_place(data: Any, layout: SparseLayout, image: Any, first: Any, start: Any) -> Any:
    """A function that reads the map, counted from a panel's first pixel in channel ``first``."""
    corner = (wide(image) * layout.shape.c + first) * layout.channel_stride + start
    corner = tvm_ir.bind(corner)
    zero = tir.const(0, "int64")

    def source(place: Any) -> Any:
        return data[(zero, zero, zero, place + corner)]

    return source
