"""Sparse GEMM of two structures in which every row has its own inputs, but less to look up.

"balanced": every row has the same number of steps, so nothing but that number is read. "kernel":
all coordinates walk the same lists of inputs. Otherwise as :mod:`.sparse_gemm`: several rows are
walked together, a value costs a broadcast and a multiply-add per vector of tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import LayerPlan
from ..geometry import KernelLayout
from .splat import load_splats


def emit_balanced_gemm(
    packed: Sequence[Any], v: Any, product: Any, block: Any, plan: LayerPlan, layout: KernelLayout
) -> None:
    """Emit the products of block ``block`` of output channels.

    Args:
        packed: buffers steps, rows, offsets, values (see :mod:`tvm_sparsewino.packing_uniform`).
        v: scratch of transformed inputs.
        product: scratch of products.
        block: index of the block of output channels.
        plan: the layer's plan.
        layout: memory layout.
    """
    steps, rows, offsets, values = packed
    with T.serial(0, layout.v.coordinates) as coordinate, T.serial(0, layout.slices) as index:
        number = (block * layout.v.coordinates + coordinate) * layout.slices + index
        count = tvm_ir.bind(_wide(steps[0]))
        first = tvm_ir.bind(number * count)
        written = rows, (block * layout.slices + index) * plan.rows_at_once
        streams = (offsets, first), (values, first)
        _emit_rows(streams, count, v, product, written, coordinate, plan, layout)


def emit_kernel_gemm(
    packed: Sequence[Any], v: Any, product: Any, block: Any, plan: LayerPlan, layout: KernelLayout
) -> None:
    """Emit the products of block ``block`` of output channels.

    Args:
        packed: buffers starts, rows, offsets, values (see :mod:`tvm_sparsewino.packing_uniform`).
        v: scratch of transformed inputs.
        product: scratch of products.
        block: index of the block of output channels.
        plan: the layer's plan.
        layout: memory layout.
    """
    starts, rows, offsets, values = packed
    first = tvm_ir.bind(_wide(starts[block * layout.slices]))
    total = tvm_ir.bind(_wide(starts[(block + 1) * layout.slices]) - first)
    with T.serial(0, layout.v.coordinates) as coordinate:
        # Values of a block lie coordinate by coordinate, each as long as the block's inputs.
        skipped = tvm_ir.bind(first * (layout.v.coordinates - 1) + coordinate * total)
        with T.serial(0, layout.slices) as index:
            number = block * layout.slices + index
            start = tvm_ir.bind(_wide(starts[number]))
            written = rows, number * plan.rows_at_once
            streams = (offsets, start), (values, tvm_ir.bind(start + skipped))
            steps = _wide(starts[number + 1]) - start
            _emit_rows(streams, steps, v, product, written, coordinate, plan, layout)


def _emit_rows(
    streams: Sequence[tuple[Any, Any]],
    steps: Any,
    v: Any,
    product: Any,
    written: tuple[Any, Any],
    coordinate: Any,
    plan: LayerPlan,
    layout: KernelLayout,
) -> None:
    """One slice: offsets and values, each a buffer and the number of the first step in it."""
    (offsets, offset_start), (values, value_start) = streams
    lanes, vectors = layout.panels.lanes, layout.panels.vectors
    width = plan.rows_at_once
    v_base = _wide(coordinate) * layout.v.coordinate_stride
    product_base = _wide(coordinate) * layout.product.coordinate_stride

    def at(row: int, i: int) -> Any:
        return tvm_ir.ramp((row * vectors + i) * lanes, 1, lanes)

    with tvm_ir.local_buffer((width * vectors * lanes,)) as sums:
        for row in range(width):
            for i in range(vectors):
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at(row, i)])
        with T.serial(0, steps) as step:
            splats = load_splats(values, tvm_ir.bind((value_start + step) * width), width, lanes)
            for row, value in enumerate(splats):
                offset = offsets[(offset_start + step) * width + row]
                base = tvm_ir.bind(_wide(offset) + v_base)
                for i in range(vectors):
                    x = v[tvm_ir.ramp(base + i * lanes, 1, lanes)]
                    T.buffer_store(sums, sums[at(row, i)] + value * x, [at(row, i)])
        rows, first_row = written
        for row in range(width):
            base = tvm_ir.bind(_wide(rows[first_row + row]) + product_base)
            for i in range(vectors):
                target = tvm_ir.ramp(base + i * lanes, 1, lanes)
                T.buffer_store(product, sums[at(row, i)], [target])


def _wide(index: Any) -> Any:
    """64-bit address arithmetic: with 32 bits LLVM adds a sign extension per lane."""
    return tir.Cast("int64", index)
