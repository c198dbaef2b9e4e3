"""Memory of the sparse direct convolution: how output pixels become vector lanes. Pure integers.

Every tap of a filter is a place in memory, counted from where the output pixel lies: the kernel
knows no channels, rows or columns, only offsets. For that the rows that a *panel* (a run of whole
output rows of one image) reads are copied into scratch, one plane per channel and per *phase*, a
phase being what lies at one remainder by the stride. Rows of a plane share the zeros between them:
those at a row's end are those before the next. There are three kinds of places:

*planes*: as above.

*map*: a 1x1 filter of stride 1 without padding needs no copy where channels of the map begin with a
cache line. Offsets are places in the map.

*runs*: the same filter on other maps, where vectors would lie across two lines, and on any map if
the plan says so. A panel is a run of pixels, whatever row they are in, and the runs of the channels
lie in scratch one after the other, in whole vectors: what a tile reads fills as little of L1 as it
can.

A 1x1 filter with a stride and no padding reads few pixels of each row: those are copied into a map
of their own first, *thinned*, which is then read as above, by a filter of stride 1.

Outputs are computed along *lines*: runs of pixels that lie together in the output and whose inputs
lie together in a plane. A line is an output row, or all pixels of a panel where rows follow each
other without a gap.

Behind a pool nothing of the map before it is written: a task computes the panels of its block of
output channels one after the other, and pools each (:class:`.geometry_pooling.PooledRows`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from .config import ConvShape, LayerPlan
from .geometry import CACHE_LINE, ceil_div, check_shape, round_up
from .geometry_panels import (
    SMALL_INPUT,
    BlockedPanels,
    CopiedRow,
    channel_sizes,
    even_share,
    panel_rows,
)
from .geometry_pooling import PooledRows
from .pool_window import Window

SHORT_RUN = 128  # floats of a copied run up to which none aliases with another in L1
ALIGNED_SHARE = 1 / 3  # of a filter's columns that must gain by rows of whole vectors
SPARE_REGISTERS = 4  # beside the sums: the rows' values, and what the compiler needs
FEW_ROWS, FEW_SPARE = 2, 2  # rows whose values are all that is beside the sums


@dataclass(frozen=True)
class Axis:
    """One dimension of a strided, dilated and padded filter.

    Attributes:
        size: of the map.
        taps, stride, dilation: of the filter.
        before: zeros before the map.
        out: outputs.
    """

    size: int
    taps: int
    stride: int
    dilation: int
    before: int
    out: int

    @cached_property
    def phases(self) -> tuple[int, ...]:
        """Remainders by the stride that some tap reads."""
        return tuple(sorted({i * self.dilation % self.stride for i in range(self.taps)}))

    def phase_of(self, tap: int) -> int:
        """Which of :attr:`phases` a tap reads."""
        return self.phases.index(tap * self.dilation % self.stride)

    def step_of(self, tap: int) -> int:
        """How far in its phase a tap lies from the output that it belongs to."""
        return tap * self.dilation // self.stride

    def span(self, phase: int) -> int:
        """Places of a phase that the outputs read."""
        taps = range(self.taps)
        return self.out + max(self.step_of(t) for t in taps if self.phase_of(t) == phase)

    def row(self, phase: int) -> CopiedRow:
        """What the map has of a phase."""
        return CopiedRow(self.phases[phase] - self.before, self.stride, self.span(phase), self.size)


@dataclass(frozen=True)
class SparseLayout(BlockedPanels):
    """Everything about memory that packing and kernel must agree on.

    The last panel of an image is moved back to end where the image ends.

    Attributes:
        shape: the convolution; of the thinned map, where there is one.
        kind: "map", "runs" or "planes", see above.
        step: rows and columns of the map from one that is read to the next; (1, 1) where none is
            thinned.
        window: of the maximum that the rows are pooled with; None where they are not.
    """

    kind: str
    step: tuple[int, int] = (1, 1)
    window: Window | None = None

    @property
    def is_thinned(self) -> bool:
        """Whether what is read is copied into a map of its own first."""
        return self.step != (1, 1)

    @property
    def in_place(self) -> bool:
        """Whether inputs are read from the map itself."""
        return self.kind == "map"

    @property
    def is_flat(self) -> bool:
        """Whether ``rows`` are pixels, whatever row of the map they are in."""
        return self.kind != "planes"

    # ---- tasks ----

    @property
    def total_rows(self) -> int:
        """What panels cut: output rows, or pixels."""
        if self.pooled is not None:
            return self.pooled.needed
        return self.shape.oh * self.shape.ow if self.is_flat else self.shape.oh

    @cached_property
    def pooled(self) -> PooledRows | None:
        """How rows are pooled, if they are."""
        if self.window is None:
            return None
        height, width = self.shape.oh, self.shape.ow
        return PooledRows(self.window, height, self.window.pooled(height, width)[0], self.rows)

    @property
    def staged_size(self) -> int:
        """Floats of the rows that wait for a pool."""
        if self.pooled is None:
            return 0
        return self.k_block * self.pooled.slots * self.shape.ow

    @property
    def turns(self) -> int:
        """Panels that a task computes."""
        return 1 if self.window is None else self.panels

    @property
    def tasks(self) -> int:
        """Independent pieces of work, as of any direct convolution, or of all panels together."""
        return super().tasks // self.turns

    @property
    def all_rows_exist(self) -> bool:
        """Whether every row of every slice is an output channel."""
        return not self.per_group % self.k_block and not self.k_block % self.rows_at_once

    # ---- lines ----

    @property
    def line(self) -> int:
        """Pixels of a line."""
        if self.is_flat:
            return self.rows
        return self.rows * self.shape.ow if self.is_merged else self.shape.ow

    @property
    def reach(self) -> int:
        """Floats of a line that vectors run along: copied runs are whole vectors."""
        return round_up(self.line, self.lanes) if self.kind == "runs" else self.line

    @property
    def lines(self) -> int:
        """Lines of a panel."""
        return 1 if self.is_flat or self.is_merged else self.rows

    @property
    def is_merged(self) -> bool:
        """Whether the rows of a panel follow each other without a gap."""
        return self.row_stride == self.shape.ow

    # ---- scratch ----

    @cached_property
    def vertical(self) -> Axis:
        """The filter's vertical dimension; outputs are those of a panel."""
        s = self.shape
        return Axis(s.h, s.r, s.stride[0], s.dilation[0], s.padding[0], self.rows)

    @cached_property
    def horizontal(self) -> Axis:
        """The filter's horizontal dimension."""
        s = self.shape
        return Axis(s.w, s.s, s.stride[1], s.dilation[1], s.padding[1], s.ow)

    @cached_property
    def row_stride(self) -> int:
        """Floats from one row of a plane to the next: what a row fills, and the zeros it needs.

        Rows of at least a vector begin at whole vectors where enough taps gain by it: loads across
        two cache lines are two loads. Of a filter's columns as many as the stride begin a row.
        """
        axis, needed = self.horizontal, self.shape.ow
        for phase in range(len(axis.phases)):
            row = axis.row(phase)
            needed = max(needed, row.stop, row.length - row.start)
        gain = axis.stride / axis.taps >= ALIGNED_SHARE and needed > self.shape.ow >= self.lanes
        return round_up(needed, self.lanes) if gain else needed

    @cached_property
    def plane_stride(self) -> int:
        """Floats from one phase's plane to the next: its rows, and zeros behind the last."""
        axis = self.horizontal
        spans = [axis.span(phase) for phase in range(len(axis.phases))]
        return self.phase_rows * self.row_stride + max(*spans, self.row_stride) - self.row_stride

    @cached_property
    def channel_stride(self) -> int:
        """Floats from one channel to the next: an odd number of cache lines, against aliasing."""
        if self.in_place:
            return self.shape.h * self.shape.w
        if self.kind == "runs" and self.reach <= SHORT_RUN:
            return self.reach
        planes = len(self.vertical.phases) * len(self.horizontal.phases)
        floats = self.reach if self.kind == "runs" else planes * self.plane_stride
        return (ceil_div(floats, CACHE_LINE) | 1) * CACHE_LINE

    @property
    def scratch_size(self) -> int:
        """Floats of the copied rows of a block of channels; vectors may reach a little beyond."""
        return 0 if self.in_place else self.channel_block * self.channel_stride + 2 * self.lanes

    @property
    def slices_outside(self) -> bool:
        """Whether what a panel reads stays in L1 while output channels pass."""
        read = self.channel_block * self.rows if self.in_place else self.scratch_size
        return read <= SMALL_INPUT

    def tap_offset(self, i: int, j: int) -> int:
        """Where tap (i, j) of a panel's first pixel lies, from its channel."""
        y, x = self.vertical, self.horizontal
        plane = y.phase_of(i) * len(x.phases) + x.phase_of(j)
        return plane * self.plane_stride + y.step_of(i) * self.row_stride + x.step_of(j)


def thinned(shape: ConvShape, lanes: int) -> ConvShape:
    """``shape`` itself, or the same convolution of the thinned map: see the module's text."""
    alone = shape.taps == 1 and shape.stride != (1, 1) and not any(shape.padding)
    if not alone or shape.oh * shape.ow < lanes:
        return shape
    return replace(shape, h=shape.oh, w=shape.ow, stride=(1, 1))


def choose_kind(shape: ConvShape, lanes: int, copied: bool = False) -> str:
    """Where inputs are read: see the module's text. ``copied``: nowhere in place."""
    alone = shape.taps == 1 and shape.stride == (1, 1) and not any(shape.padding)
    if not alone or shape.h * shape.w < lanes:
        return "planes"
    return "runs" if copied or shape.h * shape.w % CACHE_LINE else "map"


@lru_cache(maxsize=1024)
def sparse_layout(plan: LayerPlan, lanes: int) -> SparseLayout:
    """The memory of the sparse direct kernel for ``plan`` on vectors of ``lanes`` float32.

    The plan's ``panel_vectors``, ``k_block`` and ``channel_block`` are upper limits; 0 is no limit.

    Raises:
        ShapeError: see :func:`tvm_sparsewino.geometry.check_shape`.
    """
    check_shape(plan.conv)
    shape = thinned(plan.conv, lanes)
    step = plan.conv.stride if shape != plan.conv else (1, 1)
    kind = choose_kind(shape, lanes, plan.copied)
    if kind != "planes":
        pixels = shape.h * shape.w
        share = even_share(pixels, plan.panel_vectors * lanes or pixels)
        rows = min(round_up(share, lanes), pixels)
    else:
        rows = panel_rows(shape.oh, shape.ow, lanes, True, plan.panel_vectors)
    window = None if plan.pool == "none" else plan.window
    if window is not None:
        rows = round_up(rows, window.down)
    return SparseLayout(shape, lanes, rows, *channel_sizes(plan), kind, step, window)


@dataclass(frozen=True)
class Tile:
    """What is in registers at a time, for each of ``rows_at_once`` output channels.

    Attributes:
        vectors: vectors of pixels.
        lines: whole lines of a tile; 0 for a part of one line.
        count: tiles of a panel. The last of a line or of a panel is moved back to end with it, so
            some pixels may be computed twice.
        is_buffered: whether lines are shorter than a vector. Vectors then run through their gaps.
    """

    vectors: int
    lines: int
    count: int
    is_buffered: bool = False


def register_tile(layout: SparseLayout, registers: int) -> Tile:
    """The tile whose sums stay in registers beside what feeds them."""
    most = max((registers - SPARE_REGISTERS) // layout.rows_at_once, 1)
    lanes, line, lines = layout.lanes, layout.line, layout.lines
    if layout.rows_at_once <= FEW_ROWS:
        more = (registers - FEW_SPARE) // layout.rows_at_once
        # Half a cache line of a map that is read in place brings the other half along.
        most = most if layout.in_place and more * lanes % CACHE_LINE else more
    if line < lanes:
        fitting = ((most * lanes) - line) // layout.row_stride + 1
        count = ceil_div(lines, min(fitting, lines))
        each = ceil_div(lines, count)
        span = (each - 1) * layout.row_stride + line
        return Tile(ceil_div(span, lanes), each, count, True)
    whole = ceil_div(line, lanes)
    if whole > most:
        vectors = ceil_div(whole, ceil_div(whole, most))
        return Tile(vectors, 0, lines * ceil_div(layout.reach, vectors * lanes))
    count = ceil_div(lines, min(most // whole, lines))
    each = ceil_div(lines, count)
    return Tile(each * whole, each, count)
