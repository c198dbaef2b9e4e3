"""Dense GEMM of one block of output channels, register-blocked: rows x vectors of accumulators.

Coordinate by coordinate and slice by slice: the weights of a slice, which are read once, serve all
vectors of the panel; the inputs of a coordinate come from L1 or L2 again for every slice. A block
of channels is one straight piece of code, so that its addresses are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import LayerPlan
from ..geometry import FLOAT_BYTES, KernelLayout, register_tiles
from .blocks import Blocks, each_slice
from .chains import CHAIN, emit_chains, has_long_rows, store_sums
from .weights_ahead import DENSE_BYTES, asks_ahead, prefetch_run
from .wide import wide

UNROLLED_CHANNELS = 16  # longest block of channels that is one straight piece of code


def emit_dense_gemm(
    packed: Sequence[Any],
    v: Any,
    product: Any,
    blocks: Blocks,
    plan: LayerPlan,
    layout: KernelLayout,
    vector_registers: int,
) -> None:
    """Emit the products of some blocks of output channels.

    Args:
        packed: buffers rows, inputs, values (see :mod:`tvm_sparsewino.packing`).
        v: scratch of transformed inputs.
        product: scratch of products.
        blocks: the blocks of output channels.
        plan: the layer's plan.
        layout: memory layout.
        vector_registers: registers of the target; bounds the accumulators.
    """
    runs = register_tiles(layout.panels.vectors, plan.rows_at_once, vector_registers)
    conv = plan.conv
    weights = layout.v.coordinates * conv.k * (conv.c // conv.groups)
    are_many = weights * FLOAT_BYTES >= DENSE_BYTES
    ahead = are_many and asks_ahead(vector_registers, layout.panels.lanes)
    with each_slice(layout, blocks) as (coordinate, block, index):
        for first, tiles, count in runs:
            with T.serial(0, tiles) as tile:
                vector = tvm_ir.bind(first + tile * count)
                where = (block, coordinate, index, vector, count)
                _Block(packed, v, product, plan, layout, *where, ahead).emit()


@dataclass(frozen=True)
class _Block:
    """One register block: slice ``index`` with ``count`` vectors from ``vector`` on.

    Its weights are asked for early if ``ahead``.
    """

    packed: Sequence[Any]
    v: Any
    product: Any
    plan: LayerPlan
    layout: KernelLayout
    block: Any
    coordinate: Any
    index: Any
    vector: Any
    count: int
    ahead: bool

    def emit(self) -> None:
        """Emit the block: zero, products, stores."""
        rows, inputs, _ = self.packed
        layout, width, lanes = self.layout, self.plan.rows_at_once, self.layout.panels.lanes
        number = tvm_ir.bind(self.block * layout.slices + self.index)
        every = [(row, i) for row in range(width) for i in range(self.count)]

        def at(row: int, i: int) -> Any:
            return tvm_ir.ramp((row * self.count + i) * lanes, 1, lanes)

        places = [at(row, i) for row, i in every]
        first_input = tvm_ir.bind(inputs[number])
        base = self.coordinate * layout.product.coordinate_stride + self.vector * lanes

        def emit_chain(first: Any, channels: Any, adds: Any) -> None:
            with tvm_ir.local_buffer((width * self.count * lanes,)) as sums:
                for place in places:
                    T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [place])
                self._emit_products(sums, at, first_input, first, channels)
                offsets = [tvm_ir.bind(rows[number * width + row] + base) for row in range(width)]
                pairs = [
                    (tvm_ir.ramp(offsets[r] + i * lanes, 1, lanes), at(r, i)) for r, i in every
                ]
                store_sums(self.product, sums, pairs, adds)

        channels = self.plan.conv.c // self.plan.conv.groups
        emit_chains(tir.const(channels, "int32"), has_long_rows(self.plan), emit_chain)

    def _emit_products(
        self, sums: Any, at: Callable, first_input: Any, first: Any, count: Any
    ) -> None:
        """Products of ``count`` channels from ``first`` on, which begins a chain."""
        layout, width, lanes = self.layout, self.plan.rows_at_once, self.layout.panels.lanes
        scratch, shape = layout.v, self.plan.conv
        channels = shape.c // shape.groups
        values = self.packed[2]
        slice_base = (self.block * scratch.coordinates + self.coordinate) * layout.slices
        weights = tvm_ir.bind((slice_base + self.index) * (channels * width))
        base = self.coordinate * scratch.coordinate_stride + self.vector * lanes

        def step(spot: Any, weight: Any) -> None:
            spots = [tvm_ir.ramp(spot + i * lanes, 1, lanes) for i in range(self.count)]
            xs = [tvm_ir.bind(self.v[at_lanes]) for at_lanes in spots]
            for row in range(width):
                value = tvm_ir.bind(tvm_ir.broadcast(values[weight + row], lanes))
                for i, x in enumerate(xs):
                    T.buffer_store(sums, sums[at(row, i)] + value * x, [at(row, i)])

        several = has_long_rows(self.plan)
        aligned = shape.groups == 1 or channels % scratch.block == 0
        whole_chains = not several or CHAIN % scratch.block == 0
        if scratch.block > UNROLLED_CHANNELS or not (aligned and whole_chains):
            with T.serial(0, count) as number:
                channel = first + number
                # With 32 bits TVM fails to simplify what the loop over chains makes of it.
                place = scratch.channel_offset(wide(first_input + channel))
                step(tvm_ir.bind(place + base), weights + channel * width)
            return
        start = tvm_ir.bind(scratch.channel_offset(first_input) + base)
        whole, rest = divmod(channels, scratch.block)
        parts = whole
        if several:
            first_part = tvm_ir.bind(first // scratch.block)
            parts = tir.min(whole - first_part, CHAIN // scratch.block)
        if whole:
            with T.serial(0, parts) as number:
                part = first_part + number if several else number
                x = tvm_ir.bind(start + part * scratch.block_stride)
                weight = tvm_ir.bind(weights + part * (scratch.block * width))
                if self.ahead:
                    prefetch_run(values, weight, scratch.block * width)
                for c in range(scratch.block):
                    step(x + c * scratch.stride, weight + c * width)

        def emit_rest() -> None:
            for c in range(rest):
                x = start + whole * scratch.block_stride + c * scratch.stride
                step(x, weights + (whole * scratch.block + c) * width)

        if rest and several:
            with T.If(first + count == channels), T.Then():
                emit_rest()
        elif rest:
            emit_rest()
