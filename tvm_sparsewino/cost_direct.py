"""Analytic cost of the dense direct convolution, and its blocking. Pure.

What must happen: multiply-adds of whole register blocks, inputs that a tile reads from L2 because
they do not stay in L1, copies of the input rows, sums that wait between blocks of input channels,
and the loop around each register block. Constants were fitted on an AVX2 core.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from .config import ConvShape, LayerPlan
from .cost import Cost
from .cost_depthwise import depthwise_blockings, depthwise_cycles
from .cost_quantities import FMA_LATENCY, LOADS_PER_CYCLE, Blocking, Core
from .geometry import CACHE_LINE, FLOAT_BYTES, ceil_div, check_shape, register_tiles, round_up
from .geometry_depthwise import is_depthwise
from .geometry_direct import DirectLayout, direct_layout

L1_SHARE = 0.7  # of L1 that holds a tile's inputs; the rest is passed by weights and sums
# Cycles per line that a step reads from L2; plain rows are long enough to be prefetched.
MISSED_LINE = {"shifted": 1.4, "plain": 0.5, "tiled": 0.5}
BLOCK_OVERHEAD = 30.0  # cycles around the inner loop of a register block
SUM_CYCLES = 2.0  # per vector of sums stored and loaded again, in L2
FAR_SUM_CYCLES = 5.0  # the same beyond L2
COPY_CYCLES = 3.0  # per vector copied
ROW_OVERHEAD = 8.0  # per copied row
TILE_CYCLES = 5.0  # per vector copied into tiles
FAR_TILE_CYCLES = 9.0  # the same for tiles that do not stay in L2
FAR_RUN = 100.0  # per run of pixels from beyond L2, copied into tiles
OUTPUT_CYCLES = 3.0  # per vector of outputs written in long runs, or into L2
FAR_OUTPUT_CYCLES = 6.0  # the same beyond L2, a few vectors of every output channel in turn
TASK_OVERHEAD = 250.0

PANEL_VECTORS = (7, 14, 28, 56, 112, 224, 448)
CHANNEL_BLOCKS = (16, 32, 64, 128, 256)
K_BLOCKS = (64, 128, 256, 512)


@lru_cache(maxsize=4096)
def predict_direct(shape: ConvShape, core: Core) -> Cost:
    """The cost of ``shape`` as a dense direct convolution with the best blocking.

    Raises:
        ShapeError: a shape that no kernel can take.
    """
    check_shape(shape)
    blockings = (depthwise_blockings if is_depthwise(shape) else _blockings)(shape, core)
    costs = (price_direct(shape, core, blocking) for blocking in blockings)
    return min(costs, key=lambda cost: cost.cycles)


def price_direct(shape: ConvShape, core: Core, blocking: Blocking) -> Cost:
    """The cost of ``shape`` with a given blocking."""
    if is_depthwise(shape):
        return Cost(*depthwise_cycles(shape, core, blocking), shape.direct_flops, blocking)
    return _cost(shape, core, blocking)


def _blockings(shape: ConvShape, core: Core) -> Iterator[Blocking]:
    per_group, channels = shape.k // shape.groups, shape.c // shape.groups
    rows = min(8 if core.vector_registers > 16 else 4, per_group)
    # One block of output channels for each thread, where there are no other tasks.
    shared = round_up(ceil_div(per_group, core.threads), rows)
    for vectors in PANEL_VECTORS:
        for part in dict.fromkeys(min(c, channels) for c in CHANNEL_BLOCKS):
            for k in dict.fromkeys(min(k, per_group) for k in (*K_BLOCKS, shared)):
                yield Blocking(vectors, k, part, rows)


def _cost(shape: ConvShape, core: Core, blocking: Blocking) -> Cost:
    plan = LayerPlan("", shape, 1.0, "dense_direct", 0, *vars(blocking).values())
    layout = direct_layout(plan, core.lanes)
    rows, parts = layout.rows_at_once, layout.channel_blocks
    runs = register_tiles(layout.vectors, rows, core.vector_registers)
    steps = sum(tiles * _step(layout, width, core) for _, tiles, width in runs)
    blocks = layout.slices * sum(tiles for _, tiles, _ in runs)
    sums = layout.slices * rows * layout.vectors
    gemm = (
        steps * layout.slices * layout.channels * layout.shape.taps
        + blocks * parts * BLOCK_OVERHEAD
        + sums * (parts if parts > 1 else 0) * _sum_cycles(layout, core)
    )
    copies = layout.channels * _copy(layout, core)
    tasks = ceil_div(layout.tasks, core.threads)
    return Cost(
        (copies + TASK_OVERHEAD) * tasks,
        gemm * tasks,
        sums * _output_cycles(layout, core) * tasks,
        shape.direct_flops,
        Blocking(blocking.panel_vectors, layout.k_block, layout.channel_block, rows),
    )


def _step(layout: DirectLayout, width: int, core: Core) -> float:
    """Cycles of one channel and tap: multiply-adds, loads (half of them split), or latency."""
    rows = layout.rows_at_once
    loads = rows / LOADS_PER_CYCLE + 1.5 * width / core.vectors_per_cycle
    cycles = max(rows * width / core.vectors_per_cycle, loads)
    inputs = layout.channel_block * _tile_lines(layout, width) * CACHE_LINE * FLOAT_BYTES
    if layout.slices_outside or layout.slices == 1:
        inputs = 0  # every input is read once, in order, or stays in L1
    missing = max(0.0, 1 - L1_SHARE * core.l1_bytes / max(inputs, 1))
    lines = width * layout.lanes / CACHE_LINE + 0.5
    price = MISSED_LINE[layout.kind]
    return max(cycles + missing * lines * price, FMA_LATENCY)


def _copy(layout: DirectLayout, core: Core) -> float:
    """Cycles in which one channel's inputs of a panel are copied."""
    shape = layout.shape
    read = shape.c * shape.h * shape.w * FLOAT_BYTES
    far = layout.scratch_size * FLOAT_BYTES > core.l2_bytes
    tiles = layout.vectors * (FAR_TILE_CYCLES if far else TILE_CYCLES)
    tiles += FAR_RUN if read > core.l2_bytes else ROW_OVERHEAD
    if layout.from_map:
        return tiles
    row = ceil_div(layout.row_stride, layout.lanes) * COPY_CYCLES + ROW_OVERHEAD
    rows = layout.copies * layout.phases * layout.phase_rows * row
    return rows + tiles if layout.kind == "tiled" else rows


def _tile_lines(layout: DirectLayout, width: int) -> float:
    """Cache lines of one input channel that a tile reads."""
    run, r, ow = width * layout.lanes, layout.shape.r, layout.shape.ow
    if layout.kind == "tiled":
        return run / CACHE_LINE
    if layout.kind == "plain":
        return r * (run / CACHE_LINE + 1)
    span = run + (r - 1) * ow if ow < run else r * run
    return layout.copies * (span / CACHE_LINE + (1 if ow < run else r))


def _output_cycles(layout: DirectLayout, core: Core) -> float:
    written = layout.shape.k * layout.shape.oh * layout.shape.ow * FLOAT_BYTES
    # The sums of tiles are so many steps apart that lines of many channels are under way.
    near = layout.slices_outside or layout.kind == "tiled" or written <= core.l2_bytes
    return OUTPUT_CYCLES if near else FAR_OUTPUT_CYCLES


def _sum_cycles(layout: DirectLayout, core: Core) -> float:
    sums = layout.sums_size
    weights = layout.k_block * layout.channel_block * layout.shape.taps
    used = (sums + weights + layout.scratch_size) * FLOAT_BYTES
    return SUM_CYCLES if used <= core.l2_bytes else FAR_SUM_CYCLES
