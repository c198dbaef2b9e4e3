"""Dense direct convolution, register-blocked: output channels x vectors of output pixels.

Tasks run in parallel and share nothing, so results do not depend on the number of threads. A task
computes a block of output channels of one panel. Block by block of input channels it copies the
panel's rows (:mod:`.direct_input`), then, tile by tile (a few vectors of pixels), runs through its
output channels: what a tile reads stays in L1, the weights stream past it in the order in which
they are packed. Where the whole panel's rows fit into L1 the loops are the other way round, so that
the output is written in long runs. Sums of a block of channels wait in scratch for the next; the
last block applies the epilogue and stores. Borders cost nothing: the copies hold the padding.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import register_tiles
from ..geometry_direct import DirectLayout
from .direct_block import Work, emit_register_block
from .direct_input import emit_direct_input
from .epilogue import EpilogueOperands


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
    sums_size = layout.slices * layout.rows_at_once * layout.sums_stride
    with (
        T.parallel(0, layout.tasks) as task,
        tvm_ir.scratch((layout.scratch_size,)) as scratch,
        tvm_ir.scratch((sums_size if layout.channel_blocks > 1 else layout.lanes,)) as partial,
    ):
        block = tvm_ir.bind(task // layout.panels % blocks)
        image = tvm_ir.bind(task // (layout.panels * blocks))
        row = tvm_ir.bind(task % layout.panels * layout.rows)
        group = tvm_ir.bind(block // layout.k_blocks)
        with T.serial(0, layout.channel_blocks) as part:
            channel = tvm_ir.bind(part * layout.channel_block)
            count = tvm_ir.bind(tir.min(layout.channel_block, layout.channels - channel))
            first = group * layout.channels + channel
            emit_direct_input(data, scratch, layout, image, first, count, row)
            buffers = (scratch, partial, values, output)
            work = Work(layout, *buffers, epilogue, image, block, row, part, channel, count)
            _emit_blocks(work, vector_registers)


def _emit_blocks(work: Work, vector_registers: int) -> None:
    """Every register block of a task; see the module's text for the order."""
    layout = work.layout
    runs = register_tiles(layout.vectors, layout.rows_at_once, vector_registers)
    if layout.slices_outside:
        with T.serial(0, layout.slices) as index:
            for first, tiles, width in runs:
                with T.serial(0, tiles) as tile:
                    vector = tvm_ir.bind(first + tile * width)
                    emit_register_block(work, vector, width, index)
        return
    for first, tiles, width in runs:
        with T.serial(0, tiles) as tile:
            vector = tvm_ir.bind(first + tile * width)
            with T.serial(0, layout.slices) as index:
                emit_register_block(work, vector, width, index)
