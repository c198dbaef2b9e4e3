"""Sparse direct convolution: any filter, stride, dilation, padding and groups, without transforms.

The method of Park et al. (Faster CNNs with Direct Sparse Convolutions and Guided Pruning, ICLR
2017) and of Escort (Chen, 2018), with output pixels as vector lanes.

Tasks run in parallel; none reads what another writes, so results do not depend on the number of
threads. A task computes a block of output channels of one panel. It copies the panel's rows
(:mod:`.sparse_input`), if they cannot be read in place, then, tile by tile, runs through its output
channels: what a tile reads stays in cache, the weights stream past it. Where all of the panel stays
in L1 the loops are the other way round, so that the output is written in long runs. The last panel
of an image is moved back to end with it: the rows it shares with the one before get the same
values from both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_sparse import SparseLayout, register_tile
from .epilogue import EpilogueOperands
from .sparse_gemm import wide
from .sparse_input import emit_sparse_input
from .sparse_tile import Panel, emit_tile


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
        output: buffer [N, K, OH, OW].
        layout: memory layout.
        epilogue: what follows the convolution, with its buffers.
        vector_registers: registers of the target; bounds the sums.
    """
    blocks = layout.shape.groups * layout.k_blocks
    tile = register_tile(layout, vector_registers)
    tail_size = tile.vectors * layout.lanes if tile.is_buffered else layout.lanes
    with (
        T.parallel(0, layout.tasks) as task,
        tvm_ir.scratch((max(layout.scratch_size, layout.lanes),)) as scratch,
        tvm_ir.scratch((tail_size,)) as tail,
    ):
        block = tvm_ir.bind(task // layout.panels % blocks)
        image = tvm_ir.bind(task // (layout.panels * blocks))
        first = tvm_ir.bind(block // layout.k_blocks * layout.channels)
        start = tir.min(task % layout.panels * layout.rows, layout.total_rows - layout.rows)
        start = tvm_ir.bind(start)
        if layout.in_place:
            source = _in_place(data, layout, image, first, start)
        else:
            emit_sparse_input(data, scratch, layout, image, first, start)

            def source(place: Any) -> Any:
                return scratch[place]

        panel = Panel(layout, tile, packed, source, tail, output, epilogue, image, block, start)
        outer, inner = tile.count, layout.slices
        if layout.slices_outside:
            outer, inner = inner, outer
        with T.serial(0, outer) as a, T.serial(0, inner) as b:
            number, index = (b, a) if layout.slices_outside else (a, b)
            emit_tile(panel, number, index)


def _in_place(data: Any, layout: SparseLayout, image: Any, first: Any, start: Any) -> Any:
    """A function that reads the map, counted from a panel's first pixel in its first channel."""
    shape = layout.shape
    corner = (wide(image) * shape.c + first) * layout.channel_stride + start
    corner = tvm_ir.bind(corner)
    zero = tir.const(0, "int64")

    def source(place: Any) -> Any:
        return data[(zero, zero, zero, place + corner)]

    return source
