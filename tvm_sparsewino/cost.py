"""Analytic cost of one convolution on one machine, and the blocking that makes it least. Pure.

The model counts what each stage does (vector operations of the transforms, cycles in which the
product's ports are busy, rows, cache lines that move between levels) and multiplies by the prices
in :mod:`tvm_sparsewino.cost_prices`, the only fitted figures. What matters is that the model ranks
choices as measurements do; ``benchmarks/planner_report.py`` reports how far it is from that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from .config import ConvShape
from .cook_toom import cook_toom
from .cost_prices import PRICES, Prices
from .cost_quantities import AVX2, Blocking, Core, lines_beyond, quantities
from .geometry import FLOAT_BYTES, Panels, ceil_div, make_panels
from .geometry_tasks import share_out
from .structure import shared_rows

# Channels of one coordinate that lie together: a kilobyte of them at least, 8 at least. Fewer and
# the product meets new pages too often, more and the transforms' stores do.
_TOGETHER_BYTES = 1024
_CHANNEL_BLOCKS = (8, 16)
MAX_PANEL_VECTORS = 12
# Rows of tiles are cut into no shorter pieces, in vectors: 1 instead of 5 made 96 > 96 at 212 x 320
# take 25 ms instead of 14, for lines of the maps that neighbours fetch again.
LEAST_CUT = 4
# Output channels whose products are in memory together: some, or as many as networks have.
FEW_K, MAX_K_BLOCK = 96, 512


@dataclass(frozen=True)
class Cost:
    """Predicted work of one convolution.

    Attributes:
        input_cycles, gemm_cycles, output_cycles: per stage, on the core that has most to do.
        flops_done: FLOPs of nonzero products and of both transforms, all cores.
        blocking: the sizes these hold for.
        split_k: whether blocks of output channels are shared out, not panels.
        sharers: threads that get whole panels first, and blocks of those that are left; 0: blocks.
        lanes: float32 lanes of the kernel's vectors; 0: as many as the machine's have.
        copied: whether pixels are copied that could be read in place.
    """

    input_cycles: float
    gemm_cycles: float
    output_cycles: float
    flops_done: int
    blocking: Blocking
    split_k: bool = False
    sharers: int = 0
    lanes: int = 0
    copied: bool = False

    @property
    def cycles(self) -> float:
        """All stages together."""
        return self.input_cycles + self.gemm_cycles + self.output_cycles


@lru_cache(maxsize=4096)
def predict(
    shape: ConvShape,
    algorithm: str,
    m: int,
    density: float,
    core: Core = AVX2,
    structure: str = "unstructured",
) -> Cost:
    """The cost of ``shape`` with the best blocking.

    Args:
        shape: the convolution.
        algorithm: "sparse_winograd" or "dense_winograd".
        m: outputs per tile and dimension.
        density: share of nonzero coefficients, 0 to 1; the dense algorithm ignores it.
        core: the machine.
        structure: the pattern of zeros that the sparse kernel makes use of.
    """
    return ranked(shape, algorithm, m, density, core, structure)[0]


@lru_cache(maxsize=1024)
def ranked(
    shape: ConvShape,
    algorithm: str,
    m: int,
    density: float,
    core: Core = AVX2,
    structure: str = "unstructured",
) -> tuple[Cost, ...]:
    """The costs of every blocking that the model knows, lowest first; as :func:`predict`."""
    costs = [
        replace(cost, lanes=width.lanes if width.lanes != core.lanes else 0)
        for width in core.widths()
        for blocking in blockings(shape, algorithm, m, width, structure)
        for how in _ways_to_share(shape, m, width, blocking)
        for cost in (price(shape, algorithm, m, density, width, blocking, structure, *how),)
    ]
    return tuple(sorted(costs, key=lambda cost: cost.cycles))


def _ways_to_share(
    shape: ConvShape, m: int, core: Core, blocking: Blocking
) -> Iterator[tuple[bool, int]]:
    """Panels in parallel, blocks of output channels, or panels and blocks of what is left."""
    yield False, 0
    if core.threads > 1:
        yield True, 0
        count = make_panels(shape, m, core.lanes, blocking.panel_vectors).count
        if count > core.threads and count % core.threads and blocking.k_block < shape.k:
            yield True, core.threads


def price(
    shape: ConvShape,
    algorithm: str,
    m: int,
    density: float,
    core: Core,
    blocking: Blocking,
    structure: str = "unstructured",
    split_k: bool = False,
    sharers: int = 0,
    prices: Prices = PRICES,
) -> Cost:
    """The cost of ``shape`` with a given blocking; other arguments as for :func:`predict`."""
    stages = quantities(shape, algorithm, m, density, core, blocking, structure, split_k, sharers)
    panels = make_panels(shape, m, core.lanes, blocking.panel_vectors)
    shares = _shares(shape, panels, blocking, core.threads, split_k, sharers)
    cycles = [share * stage.cycles(prices) for share, stage in zip(shares, stages, strict=True)]
    if core.threads > 1:
        cycles[1] += prices.launches
    density = density if algorithm == "sparse_winograd" else 1.0
    transform = cook_toom(m, shape.r)
    tiles = shape.n * panels.tiles_y * panels.tiles_x
    flops = 2 * tiles * transform.coordinates * shape.k * (shape.c // shape.groups) * density
    flops += tiles * (shape.c * 2 * _flops(transform.bt) + shape.k * 2 * _flops(transform.at))
    return Cost(*cycles, int(flops), blocking, split_k, sharers)


def saved_by_pool(shape: ConvShape, core: Core) -> float:
    """Cycles that a kernel does without when it writes the pooled map: a quarter of the lines."""
    whole = FLOAT_BYTES * shape.n * shape.k * shape.oh * shape.ow
    lines = lines_beyond(whole, core.l2_bytes) - lines_beyond(whole // 4, core.l2_bytes)
    return PRICES.activation_lines * lines / core.threads


def _shares(
    shape: ConvShape,
    panels: Panels,
    blocking: Blocking,
    threads: int,
    split_k: bool,
    sharers: int,
) -> tuple[float, float, float]:
    """Of each stage the share that the thread with most to do has: tasks are whole.

    Blocks of output channels that are tasks of their own all transform their panel's inputs.
    """
    parts = ceil_div(shape.k, min(blocking.k_block, shape.k)) if split_k else 1
    if sharers:
        tasks = share_out(panels.count, parts, sharers)
        most = ceil_div(sharers, threads)  # of what one of the sharers has
        whole = tasks.whole + tasks.parts / parts
        return tuple(most * n / panels.count for n in (tasks.each, whole, whole))
    most = ceil_div(panels.count * parts, threads)
    own = most / (panels.count * parts)
    return most / panels.count, own, own


def blockings(
    shape: ConvShape, algorithm: str, m: int, core: Core, structure: str = "unstructured"
) -> Iterator[Blocking]:
    """Every blocking that the model compares; all of them fit the kernel and the registers."""
    alpha, sharing = m + shape.r - 1, shared_rows(structure)
    if algorithm == "dense_winograd":
        rows_choices = (4,) if core.vector_registers <= 16 else (8,)
    elif sharing > 1:
        rows_choices = (sharing,)
    else:
        rows_choices = (1, 2, 4) if structure == "unstructured" else (1, 2)
    seen = set()
    for vectors in range(1, MAX_PANEL_VECTORS + 1):
        panels = make_panels(shape, m, core.lanes, vectors)
        if panels.segments > 1 and vectors < LEAST_CUT:
            continue
        row_bytes = alpha * alpha * panels.stride * FLOAT_BYTES
        left = core.l2_bytes - shape.c * row_bytes
        fitting = max(left, core.l2_bytes // 4) // row_bytes
        # Blocks that threads can share out evenly, should they be what runs in parallel.
        rounds = ceil_div(shape.k, core.threads * MAX_K_BLOCK)
        shared = ceil_div(shape.k, core.threads * rounds)
        sizes = (max(int(fitting), 8), FEW_K, MAX_K_BLOCK, shared)
        for rows, most in product(rows_choices, sizes if core.threads > 1 else sizes[:3]):
            channels = _channel_block(panels)
            blocking = Blocking(vectors, _even_block(shape.k, most), channels, rows)
            # The same panels under another number are the same kernel.
            same = (panels.tiles, panels.segment_tiles, blocking.k_block, rows)
            # These kernels compute wide panels in parts.
            in_parts = algorithm == "dense_winograd" or sharing > 1
            # Beside accumulators, the rows' values and what the compiler needs must find room.
            fits = in_parts or panels.vectors * rows <= core.vector_registers - 4
            if fits and same not in seen:
                seen.add(same)
                yield blocking


def _channel_block(panels: Panels) -> int:
    least, most = _CHANNEL_BLOCKS
    return least if least * panels.stride * FLOAT_BYTES >= _TOGETHER_BYTES else most


def _even_block(k: int, most: int) -> int:
    """Blocks of about equal size, multiples of 8 where there are several."""
    blocks = ceil_div(k, most)
    return k if blocks == 1 else min(k, ceil_div(ceil_div(k, blocks), 8) * 8)


def _flops(matrix) -> int:
    """Operations of one pass of a transform over a tile: nonzero coefficients, both dimensions."""
    nonzero = sum(1 for row in matrix for c in row if c)
    return nonzero * len(matrix[0])
