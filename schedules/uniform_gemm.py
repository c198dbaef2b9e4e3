"""Sparse GEMMs of the structures "balanced" and "kernel": rows with inputs of their own.

"balanced": every row has the same number of steps, so nothing but that number is read. "kernel":
all coordinates walk the same lists of inputs. Otherwise as :mod:`.sparse_gemm`: several rows are
walked together, a value costs a broadcast and a multiply-add per vector of tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..config import LayerPlan
from ..geometry import KernelLayout
from .blocks import Blocks, each_block, each_slice
from .sparse_gemm import emit_rows
from .wide import wide


def emit_balanced_gemm(
    packed: Sequence[Any],
    v: Any,
    product: Any,
    blocks: Blocks,
    plan: LayerPlan,
    layout: KernelLayout,
) -> None:
    """Emit the products of some blocks of output channels.

    Args:
        packed: buffers steps, rows, offsets, values (see :mod:`tvm_sparsewino.packing_uniform`).
        v: scratch of transformed inputs.
        product: scratch of products.
        blocks: the blocks of output channels.
        plan: the layer's plan.
        layout: memory layout.
    """
    steps, rows, offsets, values = packed
    with each_slice(layout, blocks) as (coordinate, block, index):
        number = (block * layout.v.coordinates + coordinate) * layout.slices + index
        count = tvm_ir.bind(wide(steps[0]))
        first = tvm_ir.bind(number * count)
        written = rows, (block * layout.slices + index) * plan.rows_at_once
        streams = (offsets, first), (values, first)
        emit_rows(streams, count, v, product, written, coordinate, plan, layout)


def emit_kernel_gemm(
    packed: Sequence[Any],
    v: Any,
    product: Any,
    blocks: Blocks,
    plan: LayerPlan,
    layout: KernelLayout,
) -> None:
    """Emit the products of some blocks of output channels.

    Args:
        packed: buffers starts, rows, offsets, values (see :mod:`tvm_sparsewino.packing_uniform`).
        v: scratch of transformed inputs.
        product: scratch of products.
        blocks: the blocks of output channels.
        plan: the layer's plan.
        layout: memory layout.
    """
    starts, rows, offsets, values = packed
    with each_block(layout, blocks) as (coordinate, block):
        first = tvm_ir.bind(wide(starts[block * layout.slices]))
        total = tvm_ir.bind(wide(starts[(block + 1) * layout.slices]) - first)
        # Values of a block lie coordinate by coordinate, each as long as the block's inputs.
        skipped = tvm_ir.bind(first * (layout.v.coordinates - 1) + coordinate * total)
        with T.serial(0, layout.slices) as index:
            number = block * layout.slices + index
            start = tvm_ir.bind(wide(starts[number]))
            written = rows, number * plan.rows_at_once
            streams = (offsets, start), (values, tvm_ir.bind(start + skipped))
            steps = wide(starts[number + 1]) - start
            emit_rows(streams, steps, v, product, written, coordinate, plan, layout)
