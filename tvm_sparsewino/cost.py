"""Analytic cost of one convolution on one core, and the blocking that makes it least. Pure.

The model counts what each stage must do and prices it with the few constants below. They were
fitted to the kernels on an AVX2 core of 32 KiB L1 and 512 KiB L2; what matters is that they rank
choices correctly, which ``benchmarks/kernels`` checks against measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from .config import ConvShape
from .cook_toom import CookToom, cook_toom
from .geometry import CACHE_LINE, Panels, ceil_div, make_panels

CYCLES_PER_TRANSFORM_OP = 0.75  # vector operations of the transforms, cache misses included
LOADS_PER_CYCLE = 2.0
ROW_OVERHEAD = 17.0  # cycles per row of a sparse product: mispredicted exit, prologue, stores
SEGMENT_OVERHEAD = 80.0  # cycles per row segment and channel: new pages, edges, loop entry
L2_LINE = 4.0  # cycles to bring one line from L2 into L1
L3_LINE = 5.0  # the same from L3
CHANNEL_BLOCK = 8
MAX_PANEL_VECTORS = 12
MAX_K_BLOCK = 96  # products of more output channels are never in memory together
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Blocking:
    """Sizes the kernel is built with.

    Attributes:
        panel_vectors: vectors of tiles per panel.
        k_block: output channels whose products are in memory at a time.
        channel_block: channels of one coordinate that lie together in the scratch.
        rows_at_once: output channels computed together by the GEMM.
    """

    panel_vectors: int
    k_block: int
    channel_block: int
    rows_at_once: int


@dataclass(frozen=True)
class Core:
    """What the model needs to know of a CPU core.

    Attributes:
        lanes: float32 lanes of a vector.
        vector_registers: architectural vector registers.
        l2_bytes: L2 cache of one core.
    """

    lanes: int = 8
    vector_registers: int = 16
    l2_bytes: int = 512 * 1024


@dataclass(frozen=True)
class Cost:
    """Predicted work of one convolution on one core.

    Attributes:
        input_cycles, gemm_cycles, output_cycles: per stage.
        flops_done: FLOPs of nonzero products and of both transforms.
        blocking: the sizes these hold for.
    """

    input_cycles: float
    gemm_cycles: float
    output_cycles: float
    flops_done: int
    blocking: Blocking

    @property
    def cycles(self) -> float:
        """All stages together."""
        return self.input_cycles + self.gemm_cycles + self.output_cycles


@lru_cache(maxsize=4096)
def predict(shape: ConvShape, algorithm: str, m: int, density: float, core: Core = Core()) -> Cost:
    """The cost of ``shape`` with the best blocking.

    Args:
        shape: the convolution.
        algorithm: "sparse_winograd" or "dense_winograd".
        m: outputs per tile and dimension.
        density: share of nonzero coefficients, 0 to 1; the dense algorithm ignores it.
        core: the CPU.
    """
    costs = (
        _cost(shape, algorithm, m, density, core, blocking)
        for blocking in _candidates(shape, algorithm, m, core)
    )
    return min(costs, key=lambda cost: cost.cycles)


def choose_blocking(
    shape: ConvShape, algorithm: str, m: int, density: float, core: Core = Core()
) -> Blocking:
    """The blocking that :func:`predict` found best."""
    return predict(shape, algorithm, m, density, core).blocking


def _candidates(shape: ConvShape, algorithm: str, m: int, core: Core):
    alpha = m + shape.r - 1
    if algorithm == "dense_winograd":
        rows_choices = (4,) if core.vector_registers <= 16 else (8,)
    else:
        rows_choices = (1, 2)
    limit = min(MAX_PANEL_VECTORS, core.vector_registers - 4)
    for vectors in range(1, MAX_PANEL_VECTORS + 1):
        panels = make_panels(shape, m, core.lanes, vectors)
        row_bytes = alpha * alpha * panels.stride * FLOAT_BYTES
        left = core.l2_bytes - shape.c * row_bytes
        fitting = max(left, core.l2_bytes // 4) // row_bytes
        for rows, most in product(rows_choices, (max(int(fitting), 8), MAX_K_BLOCK)):
            if algorithm == "dense_winograd" or panels.vectors * rows <= limit:
                yield Blocking(vectors, _even_block(shape.k, most), CHANNEL_BLOCK, rows)


def _even_block(k: int, most: int) -> int:
    """Blocks of about equal size, multiples of 8 where there are several."""
    blocks = ceil_div(k, most)
    return k if blocks == 1 else min(k, ceil_div(ceil_div(k, blocks), 8) * 8)


def _cost(
    shape: ConvShape, algorithm: str, m: int, density: float, core: Core, blocking: Blocking
) -> Cost:
    transform = cook_toom(m, shape.r)
    panels = make_panels(shape, m, core.lanes, blocking.panel_vectors)
    density = density if algorithm == "sparse_winograd" else 1.0
    segment_vectors = panels.total_rows * panels.segment_vectors
    overhead = SEGMENT_OVERHEAD * panels.total_rows
    per_vector = CYCLES_PER_TRANSFORM_OP * segment_vectors
    input_cycles = shape.c * (per_vector * _input_ops(transform) + overhead)
    output_cycles = shape.k * (per_vector * _output_ops(transform) + overhead)
    per_row = shape.c // shape.groups * density
    if algorithm == "sparse_winograd":
        per_panel = _sparse_cycles(shape, panels, per_row, blocking)
    else:
        per_panel = _dense_cycles(shape, panels, per_row, blocking, core)
    per_panel += _scratch_cycles(shape, panels, blocking, core)
    tiles = shape.n * panels.tiles_y * panels.tiles_x
    flops = 2 * tiles * transform.coordinates * shape.k * per_row
    flops += tiles * (shape.c * 2 * _flops(transform.bt) + shape.k * 2 * _flops(transform.at))
    return Cost(input_cycles, per_panel * panels.count, output_cycles, int(flops), blocking)


def _sparse_cycles(shape: ConvShape, panels: Panels, per_row: float, blocking: Blocking) -> float:
    """Load-bound: one load per multiply-add and one for the value; then each row's overhead."""
    rows = panels.alpha**2 * shape.k
    step = (panels.vectors + 1) / LOADS_PER_CYCLE
    # Chains of dependent multiply-adds: one row alone cannot go faster than their latency.
    step = max(step, 4.0 / blocking.rows_at_once / 1.5)
    return rows * (per_row * step + ROW_OVERHEAD / blocking.rows_at_once + panels.vectors)


def _dense_cycles(
    shape: ConvShape, panels: Panels, per_row: float, blocking: Blocking, core: Core
) -> float:
    rows = blocking.rows_at_once
    blocks = ceil_div(panels.vectors, max(1, (core.vector_registers - 1) // (rows + 1)))
    vectors = panels.vectors / blocks
    step = max(rows * vectors / 2.0, (rows + vectors) / LOADS_PER_CYCLE) * blocks
    slices = panels.alpha**2 * ceil_div(shape.k, rows)
    return slices * (per_row * step * 1.1 + ROW_OVERHEAD + panels.vectors * rows)


def _scratch_cycles(shape: ConvShape, panels: Panels, blocking: Blocking, core: Core) -> float:
    """Bringing every coordinate's inputs into L1 once per block of output channels."""
    lines = panels.alpha**2 * panels.stride / CACHE_LINE
    used = lines * (shape.c + blocking.k_block) * CACHE_LINE * FLOAT_BYTES
    price = L2_LINE if used <= core.l2_bytes else L3_LINE
    blocks = ceil_div(shape.k, blocking.k_block)
    return price * lines * (shape.c * blocks + shape.k) / 2


def _flops(matrix) -> int:
    """Operations of one pass of a transform over a tile: nonzero coefficients, both dimensions."""
    nonzero = sum(1 for row in matrix for c in row if c)
    return nonzero * len(matrix[0])


def _input_ops(transform: CookToom) -> float:
    """Vector operations of the input transform per channel and vector of tiles."""
    m, alpha = transform.m, transform.alpha
    nonzero = sum(1 for row in transform.bt for c in row if c)
    vertical = m * (2 * alpha + nonzero)
    horizontal = alpha * (4 * alpha + nonzero)
    return vertical + horizontal


def _output_ops(transform: CookToom) -> float:
    """Vector operations of the output transform per channel and vector of tiles."""
    m, alpha = transform.m, transform.alpha
    nonzero = sum(1 for row in transform.at for c in row if c)
    return alpha * (alpha + nonzero) + m * (nonzero + 5 * m)
