"""Dense direct convolution, register-blocked: output channels x vectors of output pixels.

Tasks run in parallel and share nothing, so results do not depend on the number of threads. A task
computes a block of output channels of one panel. Block by block of input channels it copies the
panel's rows (:mod:`.direct_input`, or :mod:`.direct_tiles` for filters of one tap), then, tile by
tile (a few vectors of pixels), runs through its output channels: what a tile reads stays in L1, the
weights stream past it in the order in which they are packed. Where the whole panel's rows fit into
L1 the loops are the other way round, so that the output is written in long runs. Sums of a block of
channels wait in scratch for the next; in the end they go through the epilogue into the output.
Borders cost nothing: the copies hold the padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import register_tiles
from ..geometry_direct import DirectLayout
from .copied_rows import emit_zeros
from .direct_block import Work, emit_outputs, emit_register_block
from .direct_input import emit_direct_input
from .direct_tiles import emit_direct_tiles
from .epilogue import EpilogueOperands

Runs = list[tuple[int, int, int]]


def emit_direct_conv(
    data: Any,
    values: Any,
    output: Any,
    layout: DirectLayout,
    epilogue: EpilogueOperands,
    vector_registers: int,
) -> None:
    """Emit the whole convolution.

    Args:
        data: buffer [N, C, H, W].
        values: packed weights, see :mod:`tvm_sparsewino.packing_direct`.
        output: buffer [N, K, OH, OW].
        layout: memory layout.
        epilogue: what follows the convolution, with its buffers.
        vector_registers: registers of the target; bounds the accumulators.
    """
    blocks = layout.shape.groups * layout.k_blocks
    runs = register_tiles(layout.vectors, layout.rows_at_once, vector_registers)
    sums_size = layout.sums_size if layout.channel_blocks > 1 else layout.lanes
    with (
        T.parallel(0, layout.tasks) as task,
        tvm_ir.scratch((layout.scratch_size,)) as scratch,
        tvm_ir.scratch((layout.staging_size,)) as staging,
        tvm_ir.scratch((sums_size,)) as partial,
    ):
        block = tvm_ir.bind(task // layout.panels % blocks)
        image = tvm_ir.bind(task // (layout.panels * blocks))
        row = tvm_ir.bind(task % layout.panels * layout.rows)
        group = tvm_ir.bind(block // layout.k_blocks)
        if layout.channel_blocks > 1:
            emit_zeros(partial, 0, 0, layout.sums_size, layout.lanes)
        with T.serial(0, layout.channel_blocks) as part:
            channel = tvm_ir.bind(part * layout.channel_block)
            count = tvm_ir.bind(tir.min(layout.channel_block, layout.channels - channel))
            first = group * layout.channels + channel
            if layout.kind == "tiled":
                source = (image, first, count, row)
                emit_direct_tiles(data, staging, scratch, layout, runs, *source)
            else:
                emit_direct_input(data, scratch, layout, image, first, count, row)
            buffers = (scratch, partial, values, output)
            work = Work(layout, *buffers, epilogue, image, block, row, part, channel, count)
            _emit_blocks(work, runs)
        if layout.channel_blocks > 1:
            emit_outputs(work, runs)


def _emit_blocks(work: Work, runs: Runs) -> None:
    """Every register block of a task; see the module's text for the order."""
    slices, tiles = work.layout.slices, sum(count for _, count, _ in runs)
    if work.layout.slices_outside:
        with T.serial(0, slices) as index, T.serial(0, tiles) as tile:
            _with_tile(runs, tile, lambda v, width: emit_register_block(work, v, width, index))
        return

    def emit(vector: Any, width: int) -> None:
        with T.serial(0, slices) as index:
            emit_register_block(work, vector, width, index)

    with T.serial(0, tiles) as tile:
        _with_tile(runs, tile, emit)


def _with_tile(runs: Runs, tile: Any, emit: Callable[[Any, int], None], before: int = 0) -> None:
    """Emit what ``emit`` does with a tile's first vector and width, by the run it is in.

    One loop over all tiles with a branch: a loop for each run has few rounds, which LLVM unrolls,
    and then it keeps the sums of all but the first in memory.
    """
    (first, tiles, width), *rest = runs
    vector = tvm_ir.bind(first + (tile - before) * width)
    if not rest:
        emit(vector, width)
        return
    with T.If(tile < before + tiles):
        with T.Then():
            emit(vector, width)
        with T.Else():
            _with_tile(rest, tile, emit, before + tiles)
