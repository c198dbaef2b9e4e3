"""What a sparse direct convolution does, counted. Pure.

Steps, in cycles that keep the load ports busy: every input is read from memory; what surrounds the
steps of a slice; lines that come from L2 where a tile's inputs outgrow L1; sums that wait between
blocks of input channels; copies of the input rows; outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from .cost_quantities import FMA_LATENCY, LOADS_PER_CYCLE, ONE_LOAD, Core
from .geometry import CACHE_LINE, FLOAT_BYTES, ceil_div
from .geometry_sparse import SparseLayout, Tile, register_tile

L1_SHARE = 0.6  # of L1 that holds a tile's inputs; weights and sums pass through the rest
RUN_SHARE, RUN_LINES = 0.8, 0.85  # the same of copied runs, and what a line of them costs from L2
WIDE_SHARE = 1.0  # of wide cores: kernels that fill L1 were measured fastest on Zen 4
L2_SHARE = 1.0  # of L2 that holds what a panel reads, and its sums
FAR_SUMS = 3.0  # how much dearer a vector of sums is beyond L2
NOTICED, OVERSHOT = 4, 2.0  # lines after which the CPU fetches ahead, and how many
# Loads of whole lines from rows of planes touch two lines. The price of those of half a line, which
# do so half of the time, came out as nothing.
ACROSS_LINES = 1.5


@dataclass(frozen=True)
class SparseWork:
    """What a kernel does, or the cycles that one unit of it takes.

    Attributes:
        steps: cycles in which a step's loads or multiply-adds keep their ports busy.
        missed_lines: lines that a step finds in L2, not in L1.
        slices: slices of rows, for each tile and block of input channels.
        sums: vectors of sums put aside, and taken up again.
        outputs: vectors of outputs.
        copied: vectors of input rows copied in order.
        shuffled: vectors of rows that are taken apart by stride, and of short runs.
        rows: copied rows; of a map beyond L2 that is read in place, what a tile reads of a channel.
        far_lines: lines of the maps, read or written, that do not stay in L2.
        tasks: independent pieces of work.
    """

    steps: float = 0.0
    missed_lines: float = 0.0
    slices: float = 0.0
    sums: float = 0.0
    outputs: float = 0.0
    copied: float = 0.0
    shuffled: float = 0.0
    rows: float = 0.0
    far_lines: float = 0.0
    tasks: float = 0.0

    def cycles(self, prices: SparseWork) -> tuple[float, float, float]:
        """Cycles of the copies, of the products, and of the outputs."""
        pairs = zip(vars(self).values(), vars(prices).values(), strict=True)
        steps, missed, slices, sums, outputs, *copies, far, tasks = (n * p for n, p in pairs)
        return sum(copies) + tasks, steps + missed + slices + sums, outputs + far


def count_work(layout: SparseLayout, density: float, core: Core) -> SparseWork:
    """What the core that has most to do does."""
    shape, rows = layout.shape, layout.rows_at_once
    tile = register_tile(layout, core.vector_registers)
    tasks = ceil_div(layout.tasks, core.threads) * layout.turns
    tiles = tasks * tile.count * layout.slices
    steps = tiles * density * layout.channels * shape.taps
    missing = _missing(layout, tile, core)
    lines = rows * _run_lines(layout, tile)
    vectors = tiles * rows * tile.vectors
    copied_rows, copied = (tasks * n for n in _copies(layout))
    if layout.in_place and is_far(shape.n * shape.c * shape.h * shape.w, core):
        copied_rows = tasks * tile.count * layout.channels
    in_order = layout.horizontal.stride == 1 and layout.kind != "runs"
    thin_rows, thin_vectors, thin_lines = (n / core.threads for n in _thinning(layout, core))
    # Lines that a tile meets for the first time, whatever stays in L1 from then on.
    met = 0.0 if layout.in_place else _tile_floats(layout, tile) / CACHE_LINE
    met *= tasks * tile.count * layout.channels
    copied_lines = 2 * layout.scratch_size / CACHE_LINE * layout.channel_blocks
    # Read in place: this panel's part of the map, and the next one's, which is asked for.
    read = 2 * layout.channel_block * layout.rows if layout.in_place else 0
    several = layout.channel_blocks > 1
    spills = memory_bytes(layout, core) + several * read * FLOAT_BYTES > L2_SHARE * core.l2_bytes
    return SparseWork(
        steps * _step(layout, tile, core),
        steps * lines * missing + (0.0 if spills else met),
        tiles * layout.channel_blocks,
        vectors * (layout.channel_blocks - 1) * (FAR_SUMS if spills else 1),
        vectors + tasks * _kept_vectors(layout),
        copied if in_order else 0.0,
        thin_vectors + (0.0 if in_order else copied),
        thin_rows + copied_rows,
        thin_lines
        + _far_lines(layout, core) / core.threads
        + (tasks * copied_lines + met if spills else 0.0),
        tasks,
    )


def memory_bytes(layout: SparseLayout, core: Core) -> int:
    """Bytes of a thread's scratch: copied rows, sums that are put aside, rows to be pooled."""
    tile = register_tile(layout, core.vector_registers)
    sums = tile.count * tile.vectors * layout.lanes * (layout.k_block + 1)
    waiting = layout.staged_size + (sums if layout.channel_blocks > 1 else 0)
    return FLOAT_BYTES * (layout.scratch_size + waiting)


def _kept_vectors(layout: SparseLayout) -> int:
    """Vectors of rows that a panel's pool leaves for the next."""
    return layout.k_block * layout.pooled.kept * layout.row_vectors if layout.window else 0


def _step(layout: SparseLayout, tile: Tile, core: Core) -> float:
    """Cycles of one nonzero of each row of a slice, all inputs in L1."""
    rows = layout.rows_at_once
    products = rows * tile.vectors
    splats = 1 if rows in ONE_LOAD else rows
    offsets = rows / 2 if rows % 2 == 0 else rows  # two with one load
    if layout.lanes == CACHE_LINE and layout.kind == "planes":
        products *= ACROSS_LINES
    cycles = products / core.vectors_per_cycle
    return max(cycles + (offsets + splats) / LOADS_PER_CYCLE, FMA_LATENCY)


def _run_lines(layout: SparseLayout, tile: Tile) -> float:
    """Lines that come for a tile's pixels of a channel: parts of them at the ends, and what the CPU
    fetches behind a run that it has noticed, for nothing. Copied runs lie close together.
    """
    run = tile.vectors * layout.lanes / CACHE_LINE
    if layout.kind == "runs" and tile.count == 1:
        return RUN_LINES * ceil(run)
    return run + 0.5 + (OVERSHOT if run > NOTICED else 0.0)


def _missing(layout: SparseLayout, tile: Tile, core: Core) -> float:
    """Share of a step's lines that do not stay in L1 from one slice to the next."""
    read = layout.channel_block * _tile_floats(layout, tile)
    if layout.slices_outside:
        read = min(read, layout.scratch_size)
    share = RUN_SHARE if layout.kind == "runs" else L1_SHARE
    share = WIDE_SHARE if core.is_wide else share
    return max(0.0, 1 - share * core.l1_bytes / max(read * FLOAT_BYTES, 1))


def _tile_floats(layout: SparseLayout, tile: Tile) -> float:
    """Floats of a channel that a tile reads, whole cache lines."""
    y, x, lines = layout.vertical, layout.horizontal, max(tile.lines, 1)
    if layout.kind == "runs" and tile.count == 1:
        return layout.reach
    if layout.shape.taps == 1:
        return ceil_div(tile.vectors * layout.lanes, CACHE_LINE) * CACHE_LINE
    if layout.is_merged:
        lines = max(1, round(tile.vectors * layout.lanes / layout.shape.ow))
    width = tile.vectors * layout.lanes / lines
    rows = sum(lines - 1 + y.span(p) - y.out + 1 for p in range(len(y.phases)))
    columns = sum(width + x.span(p) - x.out + CACHE_LINE / 2 for p in range(len(x.phases)))
    return min(rows * columns, layout.channel_stride)


def _copies(layout: SparseLayout) -> tuple[float, float]:
    """Rows that one task copies, and vectors of them."""
    if layout.in_place:
        return 0.0, 0.0
    if layout.kind == "runs":
        return 0.0, layout.channels * layout.reach / layout.lanes
    rows = layout.channels * layout.phase_rows * len(layout.vertical.phases)
    vectors = ceil_div(layout.row_stride, layout.lanes) * len(layout.horizontal.phases)
    return rows, rows * vectors


def _thinning(layout: SparseLayout, core: Core) -> tuple[float, float, float]:
    """Rows that are thinned, vectors that come of them, and lines of them from beyond L2."""
    if not layout.is_thinned:
        return 0.0, 0.0, 0.0
    shape, (down, across) = layout.shape, layout.step
    rows, width = shape.n * shape.c * shape.h, across * shape.w
    far = is_far(rows * down * width, core)
    return rows, rows * ceil_div(shape.w, layout.lanes), far * rows * width / CACHE_LINE


def _far_lines(layout: SparseLayout, core: Core) -> float:
    """Lines of the maps that a call brings from beyond L2.

    Those that two panels write a part of come twice: all other channels are written in between.
    """
    shape, pixels = layout.shape, layout.rows * (1 if layout.is_flat else layout.shape.ow)
    out = layout.window.pooled(shape.oh, shape.ow) if layout.window else (shape.oh, shape.ow)
    read, written = (n * shape.n for n in (shape.c * shape.h * shape.w, shape.k * prod(out)))
    again = ceil_div(pixels, CACHE_LINE) * CACHE_LINE / pixels if layout.panels > 1 else 1.0
    return (is_far(read, core) * read + is_far(written, core) * written * again) / CACHE_LINE


def is_far(floats: int, core: Core) -> bool:
    """Whether a map does not stay in L2."""
    return floats * FLOAT_BYTES > core.l2_bytes / 2
