"""Dense GEMM of one block of output channels, register-blocked: rows x vectors of accumulators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..config import LayerPlan
from ..geometry import KernelLayout, ceil_div


def emit_dense_gemm(
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
        packed: buffers rows, inputs, values (see :mod:`tvm_sparsewino.packing`).
        v: scratch of transformed inputs.
        product: scratch of products.
        block: index of the block of output channels.
        plan: the layer's plan.
        layout: memory layout.
        vector_registers: registers of the target; bounds the accumulators.
    """
    rows, inputs, values = packed
    width, channels = plan.rows_at_once, plan.conv.c // plan.conv.groups
    with T.serial(0, layout.v.coordinates) as coordinate, T.serial(0, layout.slices) as index:
        slice_number = block * layout.slices + index
        value_base = (block * layout.v.coordinates + coordinate) * layout.slices + index
        first_input = tvm_ir.bind(inputs[slice_number])
        for first, count in _vector_blocks(layout.panels.vectors, width, vector_registers):
            _emit_register_block(
                values,
                v,
                product,
                layout,
                (first, count, width, channels),
                coordinate,
                value_base * channels,
                first_input,
                [rows[slice_number * width + row] for row in range(width)],
            )


def _vector_blocks(vectors: int, width: int, registers: int) -> Iterator[tuple[int, int]]:
    """Cut ``vectors`` into even runs whose accumulators, inputs and broadcast fit the registers."""
    most = max(1, (registers - 1) // (width + 1))
    first = 0
    for left in range(ceil_div(vectors, most), 0, -1):
        count = ceil_div(vectors - first, left)
        yield first, count
        first += count


def _emit_register_block(
    values: Any,
    v: Any,
    product: Any,
    layout: KernelLayout,
    sizes: tuple[int, int, int, int],
    coordinate: Any,
    value_base: Any,
    first_input: Any,
    row_offsets: list[Any],
) -> None:
    first, count, width, channels = sizes
    lanes = layout.panels.lanes
    v_base = coordinate * layout.v.coordinate_stride + first * lanes
    product_base = coordinate * layout.product.coordinate_stride + first * lanes

    def at(row: int, i: int) -> Any:
        return tvm_ir.ramp((row * count + i) * lanes, 1, lanes)

    with tvm_ir.local_buffer((width * count * lanes,)) as sums:
        for row in range(width):
            for i in range(count):
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at(row, i)])
        with T.serial(0, channels) as channel:
            base = tvm_ir.bind(layout.v.channel_offset(first_input + channel) + v_base)
            xs = [tvm_ir.bind(v[tvm_ir.ramp(base + i * lanes, 1, lanes)]) for i in range(count)]
            for row in range(width):
                weight = values[(value_base + channel) * width + row]
                value = tvm_ir.bind(tvm_ir.broadcast(weight, lanes))
                for i, x in enumerate(xs):
                    T.buffer_store(sums, sums[at(row, i)] + value * x, [at(row, i)])
        for row, offset in enumerate(row_offsets):
            for i in range(count):
                target = tvm_ir.ramp(offset + product_base + i * lanes, 1, lanes)
                T.buffer_store(product, sums[at(row, i)], [target])
