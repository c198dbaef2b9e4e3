"""Sparse GEMM of one block of output channels: M[xi] = U[xi] V[xi] for every coordinate.

Lanes are tiles, so an unstructured nonzero costs one broadcast and, per vector of tiles, one
multiply-add with its input read straight from the scratch. Several rows are walked together: their
accumulators form independent chains, they share the loop's overhead and the load of their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..config import LayerPlan
from ..geometry import KernelLayout
from .blocks import Blocks, each_slice
from .chains import emit_chains, has_long_rows, store_sums
from .splat import load_offsets, load_splats
from .weights_ahead import WINOGRAD_BYTES, asks_ahead, prefetch_weights
from .wide import wide

# Rows from which on two offsets come with one load. Two rows have wide panels: loads are few beside
# multiply-adds there, and taking offsets apart costs up to 2 %.
PAIRED_FROM = 4


def emit_sparse_gemm(
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
        packed: buffers starts, rows, offsets, values (see :mod:`tvm_sparsewino.packing`).
        v: scratch of transformed inputs.
        product: scratch of products.
        blocks: the blocks of output channels.
        plan: the layer's plan.
        layout: memory layout.
        vector_registers: registers of the target.
    """
    starts, rows, offsets, values = packed
    # With several panels the weights come from L3 again, and are as fast unasked.
    ahead = layout.panels.count == 1 and asks_ahead(vector_registers, layout.panels.lanes)
    with each_slice(layout, blocks) as (coordinate, block, index):
        number = (block * layout.v.coordinates + coordinate) * layout.slices + index
        start = tvm_ir.bind(wide(starts[number]))
        steps = wide(starts[number + 1]) - start
        streams = (offsets, start), (values, start)
        written = rows, number * plan.rows_at_once
        if ahead:
            numbers = start * plan.rows_at_once, steps * plan.rows_at_once
            prefetch_weights((offsets, values), *numbers, WINOGRAD_BYTES)
        emit_rows(streams, steps, v, product, written, coordinate, plan, layout)


def emit_rows(
    streams: Sequence[tuple[Any, Any]],
    steps: Any,
    v: Any,
    product: Any,
    written: tuple[Any, Any],
    coordinate: Any,
    plan: LayerPlan,
    layout: KernelLayout,
) -> None:
    """Emit one slice of rows that each have their own inputs, for one coordinate.

    Args:
        streams: offsets and values, each a buffer and the number of the slice's first step in it.
        steps: number of steps.
        v, product: scratch.
        written: where rows are written: a buffer and the place of the slice's first row in it.
        coordinate: the coordinate.
        plan: the layer's plan.
        layout: memory layout.
    """
    (offsets, offset_start), (values, value_start) = streams
    lanes, vectors = layout.panels.lanes, layout.panels.vectors
    width = plan.rows_at_once
    v_base = wide(coordinate) * layout.v.coordinate_stride
    product_base = wide(coordinate) * layout.product.coordinate_stride

    def at(row: int, i: int) -> Any:
        return tvm_ir.ramp((row * vectors + i) * lanes, 1, lanes)

    every = [(row, i) for row in range(width) for i in range(vectors)]
    rows, first_row = written

    def emit_chain(first: Any, count: Any, adds: Any) -> None:
        with tvm_ir.local_buffer((width * vectors * lanes,)) as sums:
            for row, i in every:
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at(row, i)])
            with T.serial(0, count) as number:
                step = number + first if several else number
                splats = load_splats(
                    values, tvm_ir.bind((value_start + step) * width), width, lanes
                )
                first_offset = tvm_ir.bind((offset_start + step) * width)
                if width >= PAIRED_FROM:
                    places = load_offsets(offsets, first_offset, width)
                else:
                    places = [wide(offsets[first_offset + row]) for row in range(width)]
                for row, (value, place) in enumerate(zip(splats, places, strict=True)):
                    base = tvm_ir.bind(place + v_base)
                    for i in range(vectors):
                        x = v[tvm_ir.ramp(base + i * lanes, 1, lanes)]
                        T.buffer_store(sums, sums[at(row, i)] + value * x, [at(row, i)])
            bases = [
                tvm_ir.bind(wide(rows[first_row + row]) + product_base) for row in range(width)
            ]
            pairs = [(tvm_ir.ramp(bases[r] + i * lanes, 1, lanes), at(r, i)) for r, i in every]
            store_sums(product, sums, pairs, adds)

    several = has_long_rows(plan)
    emit_chains(steps, several, emit_chain)
