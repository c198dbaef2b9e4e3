"""Analytic cost of the sparse direct convolution, and its blocking. Pure.

What must happen: for each slice of output channels and tile of pixels its steps (loads keep the
ports busy more than multiply-adds do, as every input is read from memory), the loop around them,
lines that come from L2 where a tile's inputs outgrow L1, copies of the input rows, and outputs.
Constants were fitted on an AVX2 core, see ``benchmarks/kernels/LOG-direct.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from .config import ConvShape, LayerPlan
from .cost import Blocking, Core, Cost
from .geometry import CACHE_LINE, ceil_div, check_shape
from .geometry_sparse import SparseLayout, Tile, register_tile, sparse_layout

FLOAT_BYTES = 4
FMA_LATENCY = 4.0
FMAS_PER_CYCLE = 2.0
LOADS_PER_CYCLE = 2.0
L1_SHARE = 0.6  # of L1 that holds a tile's inputs; weights and outputs pass through the rest
ONE_LOAD = (2, 4)  # rows whose values are one load
STEP_CYCLES = 1.1  # per cycle in which the loads of a step keep the ports busy
MISSED_LINE = 1.1  # per line that a step reads from L2
SLICE_CYCLES = 22.0  # around the steps of a slice
OUTPUT_CYCLES = 2.5  # per vector of outputs
FAR_LINE = 8.0  # per line of the map, read or written, where it does not stay in L2
COPY_CYCLES = 1.5  # per vector of input rows copied in order
SHUFFLED_CYCLES = 4.0  # per vector of a row that is taken apart
ROW_CYCLES = 8.0  # per copied row
TASK_CYCLES = 400.0

PANEL_VECTORS = (12, 28, 60, 120, 240, 0)
K_BLOCKS = (64, 128, 256, 512, 0)


@lru_cache(maxsize=4096)
def predict_sparse_direct(shape: ConvShape, density: float, core: Core) -> Cost:
    """The cost of ``shape`` as a sparse direct convolution with the best blocking.

    Args:
        shape: the convolution.
        density: share of nonzero weights, 0 to 1.
        core: the machine.

    Raises:
        ShapeError: a shape that no kernel can take.
    """
    return ranked_sparse_direct(shape, density, core)[0]


@lru_cache(maxsize=1024)
def ranked_sparse_direct(shape: ConvShape, density: float, core: Core) -> tuple[Cost, ...]:
    """The costs of every blocking that the model knows, lowest first."""
    check_shape(shape)
    costs = [_cost(shape, density, core, blocking) for blocking in _blockings(shape, core)]
    return tuple(sorted(costs, key=lambda cost: cost.cycles))


def _blockings(shape: ConvShape, core: Core) -> Iterator[Blocking]:
    per_group = shape.k // shape.groups
    k_blocks = K_BLOCKS if core.threads > 1 else (0,)
    seen = set()
    for rows in dict.fromkeys(min(rows, per_group) for rows in (1, 2, 4)):
        for vectors in PANEL_VECTORS:
            for k in dict.fromkeys(min(k or per_group, per_group) for k in k_blocks):
                layout = sparse_layout(_plan(shape, Blocking(vectors, k, 0, rows)), core.lanes)
                same = (layout.rows, k, rows)
                if same not in seen:
                    seen.add(same)
                    yield Blocking(vectors, k, 0, rows)


def _plan(shape: ConvShape, blocking: Blocking) -> LayerPlan:
    return LayerPlan("", shape, 1.0, "sparse_direct", 0, *vars(blocking).values())


def _cost(shape: ConvShape, density: float, core: Core, blocking: Blocking) -> Cost:
    layout = sparse_layout(_plan(shape, blocking), core.lanes)
    tile = register_tile(layout, core.vector_registers)
    steps = density * layout.channels * shape.taps
    slices = layout.slices * tile.count
    vectors = slices * layout.rows_at_once * tile.vectors
    gemm = slices * (steps * _step(layout, tile, core) + SLICE_CYCLES)
    tasks = ceil_div(layout.tasks, core.threads)
    far = _far_lines(shape, core) * FAR_LINE / core.threads
    return Cost(
        (_copies(layout) + TASK_CYCLES) * tasks,
        gemm * tasks,
        vectors * OUTPUT_CYCLES * tasks + far,
        int(shape.direct_flops * density),
        blocking,
    )


def _step(layout: SparseLayout, tile: Tile, core: Core) -> float:
    """Cycles of one nonzero of each row of a slice."""
    rows, lanes = layout.rows_at_once, layout.lanes
    products = rows * tile.vectors
    splats = 1 if rows in ONE_LOAD else rows
    loads = products * (1 + _split(layout)) + rows + splats
    busy = max(products / FMAS_PER_CYCLE, loads / LOADS_PER_CYCLE) * STEP_CYCLES
    lines = products * lanes / CACHE_LINE + rows * 0.5
    read = layout.channels * _tile_floats(layout, tile)
    if layout.slices_outside:
        read = min(read, layout.scratch_size)
    missing = max(0.0, 1 - L1_SHARE * core.l1_bytes / max(read * FLOAT_BYTES, 1))
    return max(busy + missing * lines * MISSED_LINE, FMA_LATENCY)


def _split(layout: SparseLayout) -> float:
    """Share of vector loads that touch two cache lines."""
    if layout.in_place and layout.channel_stride % CACHE_LINE == 0:
        return 0.0
    return (layout.lanes - 1) / CACHE_LINE


def _tile_floats(layout: SparseLayout, tile: Tile) -> float:
    """Floats of a channel that a tile reads, whole cache lines."""
    if layout.in_place:
        return tile.vectors * layout.lanes + CACHE_LINE / 2
    y, x, lines = layout.vertical, layout.horizontal, max(tile.lines, 1)
    if layout.is_merged:
        lines = max(1, round(tile.vectors * layout.lanes / layout.shape.ow))
    width = tile.vectors * layout.lanes / lines
    rows = sum(lines - 1 + y.span(p) - y.out + 1 for p in range(len(y.phases)))
    columns = sum(width + x.span(p) - x.out + CACHE_LINE / 2 for p in range(len(x.phases)))
    return min(rows * columns, layout.channel_stride)


def _copies(layout: SparseLayout) -> float:
    """Cycles of the copies of one task."""
    if layout.in_place:
        return 0.0
    axis = layout.horizontal
    rows = layout.channels * layout.phase_rows * len(layout.vertical.phases)
    vectors = ceil_div(layout.row_stride, layout.lanes) * len(axis.phases)
    each = COPY_CYCLES if axis.stride == 1 else SHUFFLED_CYCLES
    return rows * (vectors * each + ROW_CYCLES)


def _far_lines(shape: ConvShape, core: Core) -> float:
    """Lines of the maps that a call brings from beyond L2."""
    sizes = (shape.c * shape.h * shape.w, shape.k * shape.oh * shape.ow)
    far = [s * shape.n for s in sizes if s * shape.n * FLOAT_BYTES > core.l2_bytes / 2]
    return sum(far) / CACHE_LINE
