"""Sparse GEMM where adjacent output channels share their zeros: one load feeds several rows.

A step is one input channel for all rows of a slice: its vectors are loaded once and multiplied by
every row's value, so ``g`` rows and ``v`` vectors take ``g + v`` loads for ``g * v`` multiply-adds,
where rows with patterns of their own take ``g * (v + 1)``. Accumulators must leave registers for
the smaller of the two operands; panels with more vectors are computed in several parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import LayerPlan
from ..geometry import KernelLayout, ceil_div


def emit_shared_gemm(
    packed: Sequence[Any],
    v: Any,
    product: Any,
    block: Any,
    plan: LayerPlan,
    layout: KernelLayout,
    vector_registers: int,
) -> None:
    """Emit the products of block ``block`` of output channels.

    Args:
        packed: buffers starts, rows, offsets, values (see :mod:`tvm_sparsewino.packing_shared`).
        v: scratch of transformed inputs.
        product: scratch of products.
        block: index of the block of output channels.
        plan: the layer's plan.
        layout: memory layout.
        vector_registers: registers of the target; bounds the accumulators.
    """
    parts = vector_parts(layout.panels.vectors, plan.rows_at_once, vector_registers)
    with T.serial(0, layout.v.coordinates) as coordinate:
        slices = (block * layout.v.coordinates + coordinate) * layout.slices
        first = 0
        # All slices of one part, then the next part: what they read stays in the cache.
        for count in parts:
            with T.serial(0, layout.slices) as index:
                bases = [
                    _wide(coordinate) * scratch.coordinate_stride + first * layout.panels.lanes
                    for scratch in (layout.v, layout.product)
                ]
                sizes = plan.rows_at_once, count, layout.panels.lanes
                _emit_slice(packed, v, product, slices + index, bases, sizes)
            first += count


def vector_parts(vectors: int, rows: int, registers: int) -> list[int]:
    """Cut ``vectors`` evenly into parts whose accumulators and operands fit ``registers``."""
    fitting = [n for n in range(1, vectors + 1) if rows * n + min(rows, n) + 1 <= registers]
    count = ceil_div(vectors, max(fitting, default=1))
    return [(vectors + i) // count for i in range(count)]


def _emit_slice(
    packed: Sequence[Any],
    v: Any,
    product: Any,
    number: Any,
    bases: Sequence[Any],
    sizes: tuple[int, int, int],
) -> None:
    starts, rows, offsets, values = packed
    (v_base, product_base), (width, count, lanes) = bases, sizes

    def at(row: int, i: int) -> Any:
        return tvm_ir.ramp((row * count + i) * lanes, 1, lanes)

    with tvm_ir.local_buffer((width * count * lanes,)) as sums:
        for row in range(width):
            for i in range(count):
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at(row, i)])
        start = tvm_ir.bind(_wide(starts[number]))
        with T.serial(0, _wide(starts[number + 1]) - start) as step:
            p = start + step
            base = tvm_ir.bind(_wide(offsets[p]) + v_base)

            def value(row: int) -> Any:
                return tvm_ir.bind(tvm_ir.broadcast(values[p * width + row], lanes))

            def vector(i: int) -> Any:
                return tvm_ir.bind(v[tvm_ir.ramp(base + i * lanes, 1, lanes)])

            # The shorter operand stays in registers, the longer one passes through.
            if count <= width:
                xs = [vector(i) for i in range(count)]
                pairs = (
                    (row, i, u, x)
                    for row in range(width)
                    for u in [value(row)]
                    for i, x in enumerate(xs)
                )
            else:
                us = [value(row) for row in range(width)]
                pairs = (
                    (row, i, u, x)
                    for i in range(count)
                    for x in [vector(i)]
                    for row, u in enumerate(us)
                )
            for row, i, u, x in pairs:
                T.buffer_store(sums, sums[at(row, i)] + u * x, [at(row, i)])
        for row in range(width):
            base = tvm_ir.bind(_wide(rows[number * width + row]) + product_base)
            for i in range(count):
                target = tvm_ir.ramp(base + i * lanes, 1, lanes)
                T.buffer_store(product, sums[at(row, i)], [target])


def _wide(index: Any) -> Any:
    """64-bit address arithmetic: with 32 bits LLVM adds a sign extension per lane."""
    return tir.Cast("int64", index)
