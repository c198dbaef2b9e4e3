"""The only place with padding, tile, panel and scratch arithmetic. Pure integers.

A *tile* is m x m outputs. A *row segment* is a run of tiles of one tile row (the whole row where
maps are narrow). A *panel* is what one task computes: some row segments, one after the other, with
tiles as vector lanes. Row segments are numbered through images, tile rows and segments, so a panel
runs over image borders when maps are small. Where whole rows would leave lanes empty, panels are
whole vectors instead and begin and end inside of tile rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from operator import index

from .config import ConvShape, LayerPlan
from .errors import ShapeError

FLOAT_BYTES = 4  # of a float32
CACHE_LINE = 16  # float32 per 64-byte line
QUAD = 4  # float32 per 128-bit quarter: the unit of the transforms' loads
SIDES = 4  # of a map: top, left, bottom, right
INDEX_LIMIT = 2**31  # kernels index with int32


def ceil_div(a: int, b: int) -> int:
    """``a / b`` rounded up."""
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    """The first multiple of ``b`` that is not below ``a``."""
    return ceil_div(a, b) * b


def register_tiles(vectors: int, rows: int, registers: int) -> list[tuple[int, int, int]]:
    """Cut vectors into tiles whose ``rows`` x width sums stay in registers with what feeds them.

    Returns:
        first vector, number of tiles and vectors per tile, for each run of equal tiles; there are
        at most two runs, and they differ by one vector a tile.
    """
    # With one row an input is used once, straight from memory; else it waits in a register.
    most = registers - 4 if rows == 1 else (registers - 1) // (rows + 1)
    tiles = ceil_div(vectors, max(most, 1))
    width, wider = divmod(vectors, tiles)
    if tiles - wider == 1 and wider > width:
        # LLVM spills in the body of a single narrow tile: take some of the wide ones with it.
        tiles, wider = tiles + 1, wider - width
    runs = [(0, wider, width + 1), (wider * (width + 1), tiles - wider, width)]
    return [run for run in runs if run[1]]


def as_padding(padding: int | tuple[int, ...]) -> tuple[int, int, int, int]:
    """Padding as (top, left, bottom, right) from one, two (vertical, horizontal) or four numbers.

    Raises:
        ShapeError: another count, or one that is no integer or negative.
    """
    try:
        values = tuple(map(index, (padding,) if isinstance(padding, int) else padding))
    except TypeError as error:
        raise ShapeError(f"padding must be integers, got {padding!r}") from error
    sides = {1: values * 4, 2: values * 2, 4: values}.get(len(values))
    if sides is None or min(sides) < 0:
        raise ShapeError(f"padding must be 1, 2 or 4 numbers >= 0, got {padding!r}")
    return sides


def check_shape(shape: ConvShape) -> None:
    """Refuse a shape that no kernel can take.

    Raises:
        ShapeError: empty dimensions, channels that do not divide into the groups, negative
            padding, a map smaller than the filter, or a tensor too large for 32-bit indices.
    """
    if min(shape.n, shape.c, shape.h, shape.w, shape.k, shape.r, shape.s, shape.groups) < 1:
        raise ShapeError(f"every dimension must be at least 1: {shape}")
    if shape.c % shape.groups or shape.k % shape.groups:
        raise ShapeError(f"{shape.c}>{shape.k} channels do not divide into {shape.groups} groups")
    if len(shape.padding) != SIDES or min(shape.padding) < 0:
        raise ShapeError(f"padding {shape.padding} must be four numbers >= 0")
    if shape.oh < 1 or shape.ow < 1:
        filter_size = shape.r if shape.r == shape.s else f"{shape.r}x{shape.s}"
        raise ShapeError(f"a {shape.h}x{shape.w} map is smaller than the filter {filter_size}")
    top, left, bottom, right = shape.padding
    padded = (shape.h + top + bottom) * (shape.w + left + right)
    biggest = shape.n * max(shape.c * padded, shape.k * shape.oh * shape.ow)
    if biggest >= INDEX_LIMIT:
        raise ShapeError(f"a tensor of {biggest} elements is too large for 32-bit indices")


def winograd_refusal(shape: ConvShape) -> str:
    """Why no Winograd convolution computes ``shape``; "" when one can.

    F(m, r) is made of square tiles of outputs that lie side by side. Tiles begin inside the map,
    so padding is less than the filter.
    """
    for name in ("stride", "dilation"):
        value = getattr(shape, name)
        if value != (1, 1):
            return f"its {name} is {value[0]}x{value[1]}"
    if shape.r != shape.s:
        return f"its filter is {shape.r}x{shape.s}, not square"
    if max(shape.padding) >= shape.r:
        return f"its padding {shape.padding} is not less than its filter, {shape.r}"
    return ""


@dataclass(frozen=True)
class Panels:
    """How the tiles of a convolution are cut into panels.

    Attributes:
        m, alpha, lanes: outputs and inputs per tile and dimension; tiles per vector.
        tiles_y, tiles_x: tiles of one image.
        segment_tiles: tiles of a row segment; a multiple of ``lanes`` if a row has several.
        segments: row segments in a tile row.
        rows: row segments in a panel, or that it touches at most.
        total_rows: row segments altogether.
        tiles: tiles of a panel, those that lie beside the map included.
    """

    m: int
    alpha: int
    lanes: int
    tiles_y: int
    tiles_x: int
    segment_tiles: int
    segments: int
    rows: int
    total_rows: int
    tiles: int

    @property
    def count(self) -> int:
        """Number of panels."""
        return ceil_div(self.total_rows * self.segment_tiles, self.tiles)

    @property
    def cuts_rows(self) -> bool:
        """Whether panels begin inside of row segments."""
        return self.tiles != self.rows * self.segment_tiles

    @property
    def vectors(self) -> int:
        """Vectors of tiles per panel; they run over the ends of row segments."""
        return ceil_div(self.tiles, self.lanes)

    @property
    def stride(self) -> int:
        """Floats from one channel of the scratch to the next."""
        return self.vectors * self.lanes


def make_panels(shape: ConvShape, m: int, lanes: int, vectors: int) -> Panels:
    """Cut ``shape`` into panels of at most about ``vectors`` vectors of tiles."""
    tiles_y, tiles_x = ceil_div(shape.oh, m), ceil_div(shape.ow, m)
    limit = max(vectors, 1) * lanes
    total = shape.n * tiles_y
    if tiles_x > limit:
        even = ceil_div(tiles_x, ceil_div(tiles_x, limit))
        segment_tiles = round_up(even, lanes)
        segments, rows = ceil_div(tiles_x, segment_tiles), 1
    else:
        segment_tiles, segments = tiles_x, 1
        rows = min(limit // tiles_x, total)
    alpha = m + shape.r - 1
    rest = (tiles_y, tiles_x, segment_tiles, segments, rows, total * segments, rows * segment_tiles)
    whole_rows = Panels(m, alpha, lanes, *rest)
    whole_vectors = replace(whole_rows, rows=_touched_rows(limit, tiles_x), tiles=limit)
    saved = whole_rows.vectors * whole_rows.count - whole_vectors.vectors * whole_vectors.count
    # Two rows that are cut were measured to cost about what a vector does.
    pays = saved > 0 and 2 * saved >= whole_vectors.count - 1
    return whole_vectors if segments == 1 and pays else whole_rows


def _touched_rows(tiles: int, row: int) -> int:
    """Rows of ``row`` tiles that any panel of ``tiles`` tiles, one after the other, touches."""
    return max(ceil_div(panel * tiles % row + tiles, row) for panel in range(row))


@dataclass(frozen=True)
class Scratch:
    """Layout of a thread's Winograd-domain scratch: [channels/block][coordinate][block][tile].

    ``block`` channels of one coordinate are contiguous, which serves the GEMM (it walks channels
    of one coordinate) and the transforms (they write all coordinates of one channel): each
    coordinate starts an odd number of cache lines after the last, so that the streams of a
    transform fall into different cache sets.

    Attributes:
        coordinates, channels: what is kept.
        block: channels of one coordinate that lie together.
        stride: floats from one channel of a block to the next.
        places: places for coordinates in a block of channels; as many as coordinates, or more.
        first: the place of coordinate 0.
    """

    coordinates: int
    channels: int
    block: int
    stride: int
    places: int
    first: int = 0

    @property
    def coordinate_stride(self) -> int:
        """Floats from one coordinate to the next."""
        lines = ceil_div(self.block * self.stride, CACHE_LINE)
        return (lines | 1) * CACHE_LINE

    @property
    def block_stride(self) -> int:
        """Floats from one block of channels to the next."""
        return self.places * self.coordinate_stride

    @property
    def size(self) -> int:
        """Floats altogether."""
        return ceil_div(self.channels, self.block) * self.block_stride

    def channel_offset(self, channel):
        """Offset of a channel; works for integers, integer arrays and index expressions."""
        first = self.first * self.coordinate_stride
        if self.block >= self.channels:
            return channel * self.stride + first
        inside = (channel % self.block) * self.stride + first
        return (channel // self.block) * self.block_stride + inside


@dataclass(frozen=True)
class KernelLayout:
    """Everything about memory that packing and kernel must agree on, from the plan alone.

    Attributes:
        panels: the cut into panels.
        v: scratch of transformed inputs, all channels.
        product: scratch of products M of one block of output channels, or of all, and one row more
            that takes what padding rows compute.
        is_shared: whether both are the same memory.
        keeps_all: whether products of all blocks are in memory at a time.
        k_block: output channels per block.
        k_blocks: number of blocks.
        slices: groups of ``rows_at_once`` output channels per block and coordinate.
    """

    panels: Panels
    v: Scratch
    product: Scratch
    is_shared: bool
    keeps_all: bool
    k_block: int
    k_blocks: int
    slices: int

    @property
    def dummy_row(self) -> int:
        """The extra row of the products."""
        return self.k_block * (self.k_blocks if self.keeps_all else 1)

    def first_row(self, block):
        """Where the products of a block begin; works for integers and index expressions."""
        return block * self.k_block if self.keeps_all else 0


@lru_cache(maxsize=1024)
def kernel_layout(plan: LayerPlan, lanes: int) -> KernelLayout:
    """The memory layout of the kernel for ``plan`` on vectors of ``lanes`` float32.

    Raises:
        ShapeError: see :func:`check_shape` and :func:`winograd_refusal`.
    """
    shape = plan.conv
    check_shape(shape)
    reason = winograd_refusal(shape)
    if reason:
        raise ShapeError(f"no Winograd kernel takes the layer: {reason}")
    panels = make_panels(shape, plan.m, lanes, plan.panel_vectors)
    k_block = min(plan.k_block or shape.k, shape.k)
    k_blocks = ceil_div(shape.k, k_block)
    is_shared = plan.split_k or k_blocks == 1
    keeps_all = plan.sharers > 0
    rows = k_block * (k_blocks if keeps_all else 1) + 1
    v, product = _scratch(panels, shape.c, rows, plan.channel_block or shape.c, is_shared)
    slices = block_slices(shape, k_block, plan.rows_at_once)
    return KernelLayout(panels, v, product, is_shared, keeps_all, k_block, k_blocks, slices)


def _scratch(
    panels: Panels, inputs: int, products: int, block: int, is_shared: bool
) -> tuple[Scratch, Scratch]:
    """Scratch of transformed inputs and of products.

    Where a task needs its inputs for one block of output channels only, the products of a
    coordinate take the place of the inputs of the one before, which have been used: half of the
    memory, and what is written lies in the caches already.
    """
    coordinates, stride = panels.alpha**2, panels.stride
    if not is_shared:
        sizes = [(channels, min(block, channels), stride) for channels in (inputs, products)]
        v, product = (Scratch(coordinates, *size, coordinates) for size in sizes)
        return v, product
    channels = max(inputs, products)
    whole = Scratch(coordinates, channels, min(block, channels), stride, coordinates + 1)
    return replace(whole, first=1), whole


def block_slices(shape: ConvShape, k_block: int, rows_at_once: int) -> int:
    """Slices of ``rows_at_once`` rows that any block of ``k_block`` output channels fits into.

    Slices never cross a group's border, so a block that touches several groups needs more.
    """
    per_group = shape.k // shape.groups
    most = 0
    for start in range(0, shape.k, k_block):
        end = min(start + k_block, shape.k)
        groups = range(start // per_group, (end - 1) // per_group + 1)
        spans = [(max(start, g * per_group), min(end, (g + 1) * per_group)) for g in groups]
        most = max(most, sum(ceil_div(b - a, rows_at_once) for a, b in spans))
    return most
