"""Analytic cost of the dense direct convolution on one core, and its blocking. Pure.

What must happen: multiply-adds of whole register blocks, the copies of the input rows, partial
sums that wait between blocks of input channels, and the loop around each register block.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from .config import ConvShape, LayerPlan
from .cost import Blocking, Core, Cost
from .geometry import CACHE_LINE, check_shape
from .geometry_direct import DirectLayout, direct_layout

FLOAT_BYTES = 4
FMA_LATENCY = 4.0
LOADS_PER_CYCLE = 2.0
L2_LINE = 4.0  # cycles to move a line between L1 and L2
SLACK = 1.06  # measured over counted cycles of the inner loop
BLOCK_OVERHEAD = 25.0  # cycles around the inner loop of a register block
COPY_CYCLES = 3.0  # per vector copied, loads from L2 and loop included
ROW_OVERHEAD = 8.0  # per copied row
TASK_OVERHEAD = 400.0
PANEL_VECTORS = (14, 28, 56, 98, 196)
CHANNEL_BLOCKS = (16, 32, 64, 128)
K_BLOCKS = (64, 128, 256)


@lru_cache(maxsize=4096)
def predict_direct(shape: ConvShape, core: Core) -> Cost:
    """The cost of ``shape`` as a dense direct convolution with the best blocking.

    Raises:
        ShapeError: a shape that no kernel can take.
    """
    check_shape(shape)
    costs = (_cost(shape, core, blocking) for blocking in _candidates(shape, core))
    return min(costs, key=lambda cost: cost.cycles)


def _candidates(shape: ConvShape, core: Core) -> Iterator[Blocking]:
    per_group, channels = shape.k // shape.groups, shape.c // shape.groups
    rows = min(8 if core.vector_registers > 16 else 4, per_group)
    for vectors in PANEL_VECTORS:
        for part in dict.fromkeys(min(c, channels) for c in CHANNEL_BLOCKS):
            for k in dict.fromkeys(min(k, per_group) for k in K_BLOCKS):
                yield Blocking(vectors, k, part, rows)


def _cost(shape: ConvShape, core: Core, blocking: Blocking) -> Cost:
    plan = LayerPlan("", shape, 1.0, "dense_direct", 0, *vars(blocking).values())
    layout = direct_layout(plan, core.lanes)
    rows, parts = layout.rows_at_once, layout.channel_blocks
    runs = layout.tile_runs(core.vector_registers)
    steps = sum(tiles * _step(rows, width) for _, tiles, width in runs)
    products = steps * layout.slices * layout.channels * layout.taps * SLACK
    blocks = layout.slices * sum(tiles for _, tiles, _ in runs)
    sums = layout.slices * rows * layout.vectors
    waiting = sums * (parts - 1) * 2 * _price(layout, core)
    gemm = products + waiting + blocks * parts * BLOCK_OVERHEAD
    copied = layout.channels * layout.copies * layout.phases * layout.phase_rows
    row_vectors = layout.row_stride / layout.lanes
    copies = copied * (row_vectors * COPY_CYCLES + ROW_OVERHEAD) + TASK_OVERHEAD
    return Cost(
        copies * layout.tasks,
        gemm * layout.tasks,
        2.0 * sums * layout.tasks,
        shape.direct_flops,
        Blocking(blocking.panel_vectors, layout.k_block, layout.channel_block, rows),
    )


def _step(rows: int, width: int) -> float:
    """Cycles of one channel and tap: multiply-adds, loads (half of them split), or latency."""
    return max(rows * width / 2.0, (rows + 1.5 * width) / LOADS_PER_CYCLE, FMA_LATENCY)


def _price(layout: DirectLayout, core: Core) -> float:
    """Cycles to store or load one vector of partial sums: in L2, or beyond it."""
    sums = layout.slices * layout.rows_at_once * layout.sums_stride
    weights = layout.k_block * layout.channel_block * layout.taps
    used = sums + weights + layout.channel_block * layout.channel_stride
    share = layout.lanes / CACHE_LINE
    return share * L2_LINE * (1.0 if used * FLOAT_BYTES <= core.l2_bytes else 3.0)
