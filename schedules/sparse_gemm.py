"""Sparse GEMM of one block of output channels: M[xi] = U[xi] V[xi] for every coordinate.

Lanes are tiles, so an unstructured nonzero costs one broadcast and, per vector of tiles, one
multiply-add with its input read straight from the scratch. Several rows are walked together: their
accumulators form independent chains, they share the loop's overhead and the load of their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import LayerPlan
from ..geometry import KernelLayout
from .splat import load_splats


def emit_sparse_gemm(
    packed: Sequence[Any], v: Any, product: Any, block: Any, plan: LayerPlan, layout: KernelLayout
) -> None:
    """Emit the products of block ``block`` of output channels.

    Args:
        packed: buffers starts, rows, offsets, values (see :mod:`tvm_sparsewino.packing`).
        v: scratch of transformed inputs.
        product: scratch of products.
        block: index of the block of output channels.
        plan: the layer's plan.
        layout: memory layout.
    """
    starts, rows, offsets, values = packed
    lanes, vectors = layout.panels.lanes, layout.panels.vectors
    width = plan.rows_at_once
    with T.serial(0, layout.v.coordinates) as coordinate, T.serial(0, layout.slices) as index:
        number = (block * layout.v.coordinates + coordinate) * layout.slices + index
        v_base = _wide(coordinate) * layout.v.coordinate_stride
        product_base = _wide(coordinate) * layout.product.coordinate_stride
        with tvm_ir.local_buffer((width * vectors * lanes,)) as sums:
            zero = tvm_ir.broadcast(0.0, lanes)
            for i in range(width * vectors):
                T.buffer_store(sums, zero, [tvm_ir.ramp(i * lanes, 1, lanes)])
            start = tvm_ir.bind(_wide(starts[number]))
            with T.serial(0, _wide(starts[number + 1]) - start) as step:
                p = tvm_ir.bind((start + step) * width)
                splats = load_splats(values, p, width, lanes)
                for row, value in enumerate(splats):
                    base = tvm_ir.bind(_wide(offsets[p + row]) + v_base)
                    for i in range(vectors):
                        at = tvm_ir.ramp((row * vectors + i) * lanes, 1, lanes)
                        x = v[tvm_ir.ramp(base + i * lanes, 1, lanes)]
                        T.buffer_store(sums, sums[at] + value * x, [at])
            for row in range(width):
                base = tvm_ir.bind(_wide(rows[number * width + row]) + product_base)
                for i in range(vectors):
                    at = tvm_ir.ramp((row * vectors + i) * lanes, 1, lanes)
                    T.buffer_store(product, sums[at], [tvm_ir.ramp(base + i * lanes, 1, lanes)])


def _wide(index: Any) -> Any:
    """64-bit address arithmetic: with 32 bits LLVM adds a sign extension per lane."""
    return tir.Cast("int64", index)
