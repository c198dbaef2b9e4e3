"""What the stages of a Winograd convolution do, counted: operations, rows, cache lines. Pure.

The units are those that :mod:`tvm_sparsewino.cost_prices` has prices for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from .config import ConvShape
from .cook_toom import CookToom, cook_toom
from .cost_prices import Prices
from .geometry import CACHE_LINE, FLOAT_BYTES, Panels, ceil_div, make_panels
from .row_slices import vector_parts
from .structure import shared_rows

LINE_BYTES = CACHE_LINE * FLOAT_BYTES
# Of every core that the models know: loads of single numbers begun in a cycle, and cycles until a
# multiply-add's sum can be added to.
LOADS_PER_CYCLE = 2.0
FMA_LATENCY = 4.0
# Of the core that prices are fitted to: vectors loaded, and multiplied and added, in a cycle.
_FITTED_VECTORS = 2.0
_WIDE, _NARROW = 16, 8
_MANY_REGISTERS = 32
# What operations of a transform take where a vector is a whole cache line: none of its loads from
# the maps' rows is aligned, so all of them touch two lines. Measured on Zen 4: 1.1 to 1.4.
_WHOLE_LINE = 1.2
# Rows whose values come with one load.
ONE_LOAD = (2, 4)
# A load of an offset beside one of a vector: whole registers have a third port on the fitted core.
_OFFSET_LOAD = 0.5
# Slices whose multiply-adds are under way at a time: the reorder buffer looks beyond one.
_SLICES_IN_FLIGHT = 1.5
# Share of L1 that one coordinate's inputs may fill before the rest pushes them out, and what a line
# costs that is fetched again, beside one of a stream: read in a row, and in the order of nonzeros.
# The latter is for lines that two loads wait for; a single one leaves the core room to look ahead.
_IN_A_ROW = (0.75, 1.0)
_SCATTERED = (0.85, 1.5)
# What a row segment that a panel's end cuts costs each panel, in whole ones: loops that are not as
# long as the last time, whose ends the core foresees wrongly.
_CUT_SEGMENT = 3
_PAGE_BYTES = 4096
# Pages that the scratch of one channel may lie in before a first-level TLB of 64 loses some of them
# to maps, staged rows and weights: with 24 the samples of F(6,3) are told apart best.
_PAGES = 24


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
    """What the model needs to know of the machine.

    Attributes:
        lanes: float32 lanes of a vector.
        vector_registers: architectural vector registers.
        l1_bytes, l2_bytes: data caches of one core.
        threads: cores that work together.
        vectors_per_cycle: vector loads begun in a cycle, and multiply-adds.
    """

    lanes: int = 8
    vector_registers: int = 16
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    threads: int = 1
    vectors_per_cycle: float = 2.0

    @property
    def is_wide(self) -> bool:
        """Whether registers hold a cache line, should kernels use but half of it."""
        return self.vector_registers == _MANY_REGISTERS and self.lanes >= _NARROW

    def widths(self) -> tuple[Core, ...]:
        """The core itself, and as it is for kernels that use half of its widest registers."""
        if self.lanes != _WIDE:
            return (self,)
        return self, replace(self, lanes=_NARROW, vectors_per_cycle=2.0)


AVX2 = Core()
# Typical cores, by lanes: SSE or NEON, AVX2, AVX-512.
CORES = {
    4: Core(lanes=4, l2_bytes=256 * 1024),
    8: AVX2,
    16: Core(lanes=16, vector_registers=32, l2_bytes=1024 * 1024),
}


@dataclass(frozen=True)
class Quantities:
    """What one stage does, in the units that :class:`Prices` names."""

    transform_ops: float = 0.0
    crowded_ops: float = 0.0
    segments: float = 0.0
    activation_lines: float = 0.0
    page_turns: float = 0.0
    steps: float = 0.0
    slices: float = 0.0
    product_stores: float = 0.0
    l1_misses: float = 0.0
    l2_misses: float = 0.0
    weight_lines: float = 0.0

    def cycles(self, prices: Prices) -> float:
        """The sum of quantity times price."""
        return sum(getattr(prices, name) * value for name, value in asdict(self).items())


def quantities(
    shape: ConvShape,
    algorithm: str,
    m: int,
    density: float,
    core: Core,
    blocking: Blocking,
    structure: str = "unstructured",
    split_k: bool = False,
    sharers: int = 0,
) -> tuple[Quantities, Quantities, Quantities]:
    """What input transform, product and output transform do, all panels together."""
    if sharers:  # products of a coordinate are computed one block after the other
        blocking = replace(blocking, k_block=shape.k)
    transform = cook_toom(m, shape.r)
    panels = make_panels(shape, m, core.lanes, blocking.panel_vectors)
    vectors = panels.vectors * panels.count
    images = FLOAT_BYTES * shape.n
    inputs = lines_beyond(images * shape.c * shape.h * shape.w, core.l2_bytes)
    outputs = lines_beyond(images * shape.k * shape.oh * shape.ow, core.l2_bytes)
    # A row's inputs, its results and a constant do not all find a register.
    ops = "crowded_ops" if 2 * transform.alpha >= core.vector_registers else "transform_ops"
    segments = panels.total_rows
    if panels.cuts_rows:
        segments += 2 * _CUT_SEGMENT * (panels.count - 1)
    turns = _page_turns(panels, blocking) * vectors
    slower = _FITTED_VECTORS / core.vectors_per_cycle
    slower *= _WHOLE_LINE if core.lanes == CACHE_LINE else 1
    first = Quantities(
        **{ops: shape.c * vectors * slower * _input_ops(transform)},
        segments=shape.c * segments,
        activation_lines=inputs,
        page_turns=shape.c * turns,
    )
    last = Quantities(
        **{ops: shape.k * vectors * slower * _output_ops(transform)},
        segments=shape.k * segments,
        activation_lines=outputs,
        page_turns=shape.k * turns,
    )
    if algorithm == "sparse_winograd":
        middle = _sparse_product(shape, panels, density, core, blocking, structure, split_k)
    else:
        middle = _dense_product(shape, panels, core, blocking, split_k)
    return first, middle, last


def _sparse_product(
    shape: ConvShape,
    panels: Panels,
    density: float,
    core: Core,
    blocking: Blocking,
    structure: str,
    split_k: bool,
) -> Quantities:
    """One load per multiply-add, those of values and offsets, then what each slice of rows costs.

    The values of two or four rows are one load. Rows that share their pattern load their inputs
    once; their values come again for every part of a panel that registers cannot hold whole.
    """
    rows, sharing = panels.alpha**2 * shape.k, shared_rows(structure)
    nonzeros = rows * (shape.c // shape.groups) * density
    v, together = panels.vectors, max(blocking.rows_at_once, sharing)
    # Accumulators of one slice are the independent chains; a few slices overlap in the core.
    latency = FMA_LATENCY / _SLICES_IN_FLIGHT / together
    parts = len(vector_parts(v, together, core.vector_registers)) if sharing > 1 else 1
    splats = parts / (together if together in ONE_LOAD else 1)
    loads = (_OFFSET_LOAD * parts / sharing + splats) / LOADS_PER_CYCLE
    loads += v / sharing / core.vectors_per_cycle
    step = max(loads, v / core.vectors_per_cycle, parts * latency)
    offsets = nonzeros / (panels.alpha**2 if structure == "kernel" else sharing)
    lines = FLOAT_BYTES * (nonzeros + offsets) / LINE_BYTES
    touched = nonzeros / sharing * v * core.lanes / CACHE_LINE
    return Quantities(
        steps=panels.count * nonzeros * step,
        slices=panels.count * parts * rows / together,
        product_stores=panels.count * rows * v,
        **_moved(shape, panels, core, blocking, split_k, lines, touched, _SCATTERED),
    )


def _dense_product(
    shape: ConvShape, panels: Panels, core: Core, blocking: Blocking, split_k: bool
) -> Quantities:
    """Register blocks of rows x vectors: busy multiply-adders, or loads where blocks are flat."""
    rows, channels = blocking.rows_at_once, shape.c // shape.groups
    blocks = ceil_div(panels.vectors, max(1, (core.vector_registers - 1) // (rows + 1)))
    vectors = panels.vectors / blocks
    loads = rows / LOADS_PER_CYCLE + vectors / core.vectors_per_cycle
    step = max(rows * vectors / core.vectors_per_cycle, loads, FMA_LATENCY)
    slices = panels.alpha**2 * ceil_div(shape.k, rows)
    lines = panels.alpha**2 * shape.k * channels * FLOAT_BYTES / LINE_BYTES
    touched = slices * channels * panels.vectors * core.lanes / CACHE_LINE
    return Quantities(
        steps=panels.count * slices * channels * step * blocks,
        slices=panels.count * slices * blocks,
        product_stores=panels.count * slices * rows * panels.vectors,
        **_moved(shape, panels, core, blocking, split_k, lines, touched, _IN_A_ROW),
    )


def _moved(
    shape: ConvShape,
    panels: Panels,
    core: Core,
    blocking: Blocking,
    split_k: bool,
    weight_lines: float,
    touched: float,
    reading: tuple[float, float],
) -> dict[str, float]:
    """Cache lines that the product moves between levels, all panels together.

    Args:
        shape, panels, core, blocking, split_k: what is computed, and how.
        weight_lines: lines of all weights and offsets; every panel reads each once.
        touched: lines of transformed inputs that the product reads in a panel, repeats counted.
        reading: how it reads them: ``_IN_A_ROW`` or ``_SCATTERED``.
    """
    coordinates = panels.alpha**2
    lines = coordinates * panels.stride / CACHE_LINE  # of one channel
    passes = ceil_div(shape.k, blocking.k_block)
    # Every pass over a coordinate brings its inputs into L1 once; those that do not stay there
    # come again whenever they are read.
    inputs = shape.c // shape.groups * panels.stride * FLOAT_BYTES
    share, again = reading
    missing = max(0.0, 1 - share * core.l1_bytes / inputs)
    once = min(lines * shape.c * passes, touched)
    if reading == _SCATTERED and core.lanes == CACHE_LINE:
        again /= 2
    into_l1 = once + again * missing * max(0.0, touched - once)
    # Products take the place of inputs where a task computes one block of output channels.
    is_shared = passes == 1 or split_k
    channels = max(shape.c, blocking.k_block) if is_shared else shape.c + blocking.k_block
    scratch = lines * channels * LINE_BYTES
    weights = weight_lines * LINE_BYTES
    # Transformed inputs and products are written and read; what L2 cannot hold goes through L3.
    spilled = max(0.0, 1 - core.l2_bytes / scratch)
    stay = scratch + weights <= core.l2_bytes
    return {
        "l1_misses": panels.count * (into_l1 + 2 * lines * shape.k),
        "l2_misses": panels.count * spilled * lines * (shape.c * (1 + passes) + shape.k),
        "weight_lines": weight_lines * (1 if stay else panels.count),
    }


def _page_turns(panels: Panels, blocking: Blocking) -> float:
    """Rows of the scratch, of a channel and a vector, that meet a page which the TLB has lost.

    A transform goes through all coordinates of a channel, vector by vector.
    """
    coordinates = panels.alpha**2
    pages = coordinates * blocking.channel_block * panels.stride * FLOAT_BYTES / _PAGE_BYTES
    return coordinates * max(0.0, 1 - _PAGES / max(pages, 1))


def lines_beyond(data_bytes: float, cache_bytes: int) -> float:
    """Lines of an array that a cache does not keep from one layer to the next."""
    return max(0.0, data_bytes - cache_bytes / 2) / LINE_BYTES


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
