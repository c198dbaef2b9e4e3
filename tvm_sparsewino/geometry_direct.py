"""Memory of the direct convolution: how output pixels become vector lanes. Pure integers.

A *panel* is a run of whole output rows of one image. Its input rows are copied, with their
padding, into scratch, a block of channels at a time, in one of three ways:

*plain*: one copy whose rows are as wide as the padded map. Vectors run along one output row; the
last of a row may be partly empty. Only for horizontal stride 1.

*shifted*: one copy per filter column, shifted by that column, taken apart by stride and without
borders, so that every row is as wide as the output. Vectors run along all pixels of the panel, and
only its last one may be partly empty. It costs as many times the scratch as the filter has columns.

*tiled*: for filters of one tap, tile after tile and channel after channel, in the order in which
the kernel reads. Vectors run along all pixels, as for shifted rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from .config import ConvShape, LayerPlan
from .geometry import CACHE_LINE, ceil_div, check_shape, round_up
from .geometry_panels import SMALL_INPUT, BlockedPanels, channel_sizes, panel_rows

PLAIN_WASTE = 0.04  # share of empty lanes up to which whole vectors per row are taken


@dataclass(frozen=True)
class DirectLayout(BlockedPanels):
    """Everything about memory that packing and kernel must agree on.

    A slice is a register block of output channels; a block of input channels is in scratch at a
    time.

    Attributes:
        kind: "plain", "shifted" or "tiled", see above.
    """

    kind: str

    # ---- lanes ----

    @property
    def is_flat(self) -> bool:
        """Whether vectors run over row borders."""
        return self.kind != "plain"

    @property
    def vectors(self) -> int:
        """Vectors of a full panel."""
        if self.is_flat:
            return ceil_div(self.rows * self.shape.ow, self.lanes)
        return self.rows * self.row_vectors

    @property
    def tail(self) -> int | None:
        """Pixels of a vector that is not whole, None where panels differ in it."""
        if not self.is_flat:
            return self.shape.ow % self.lanes
        return self.rows * self.shape.ow % self.lanes if self.shape.oh % self.rows == 0 else None

    # ---- copied rows ----

    @property
    def copies(self) -> int:
        """Copies of every input row."""
        return self.shape.s if self.kind == "shifted" else 1

    @property
    def phases(self) -> int:
        """Remainders by the vertical stride that some filter row reads."""
        return min(self.shape.stride[0], self.shape.extent[0])

    @property
    def row_stride(self) -> int:
        """Floats from one copied row to the next."""
        if self.is_flat:
            return self.shape.ow
        padded = self.shape.w + self.shape.padding[1] + self.shape.padding[3]
        reach = self.row_vectors * self.lanes + self.shape.extent[1] - 1
        return round_up(max(padded, reach), self.lanes)

    @property
    def copy_stride(self) -> int:
        """Floats from one copy to the next; the last vector of a panel stays inside."""
        whole = self.phases * self.phase_rows * self.row_stride
        return round_up(whole + self.lanes - 1, self.lanes) if self.is_flat else whole

    @property
    def rows_stride(self) -> int:
        """Floats from one channel's rows to the next: an odd number of cache lines, for L1."""
        return (ceil_div(self.copies * self.copy_stride, CACHE_LINE) | 1) * CACHE_LINE

    def row_offset(self, i: int) -> int:
        """Where filter row ``i`` of the panel's first output row lies in a copy."""
        stride, down = self.shape.stride[0], i * self.shape.dilation[0]
        return (down % stride * self.phase_rows + down // stride) * self.row_stride

    def tap_offset(self, i: int, j: int) -> int:
        """Where the input of tap (i, j) of the panel's first pixel lies, from its channel."""
        if self.kind == "tiled":
            return 0
        column = j * (self.copy_stride if self.is_flat else self.shape.dilation[1])
        return self.row_offset(i) + column

    # ---- scratch ----

    @property
    def from_map(self) -> bool:
        """Whether a panel's inputs are one run of the map, for each channel."""
        s = self.shape
        return self.kind == "tiled" and s.stride == (1, 1) and not any(s.padding)

    @property
    def staging_size(self) -> int:
        """Floats of one channel's rows on their way into tiles."""
        return self.rows_stride if self.kind == "tiled" and not self.from_map else self.lanes

    @property
    def vector_stride(self) -> int:
        """Floats that a tile takes per vector (tiled): tiles begin in different sets of L1."""
        return self.channel_block * self.lanes + CACHE_LINE

    @property
    def scratch_size(self) -> int:
        """Floats of the inputs of a block of channels; vectors may reach a little beyond."""
        if self.kind == "tiled":
            return self.vectors * self.vector_stride
        return self.channel_block * self.rows_stride + self.lanes

    def channel_stride(self, width: int) -> int:
        """Floats from one channel to the next, for a tile of ``width`` vectors."""
        return width * self.lanes if self.kind == "tiled" else self.rows_stride

    @property
    def slices_outside(self) -> bool:
        """Whether the inputs stay in L1 beside the weights while output channels pass."""
        return self.scratch_size <= SMALL_INPUT

    @property
    def sums_size(self) -> int:
        """Floats of the partial sums of a task."""
        return self.slices * self.rows_at_once * self.vectors * self.lanes

    def sums_offset(self, vector, width, index):
        """Where the sums of a register block wait, which lie together.

        Args:
            vector: its first vector.
            width: its vectors.
            index: its slice.
        """
        block = self.rows_at_once * self.lanes
        return vector * (self.slices * block) + index * (width * block)

    # ---- packed weights ----

    def weights_offset(self, block, channel, count, index):
        """Where in the packed weights a slice's part of a block of channels starts.

        Args:
            block: the block of output channels, counted through the groups.
            channel: first input channel of the block of channels.
            count: its channels.
            index: the slice.
        """
        per_channel = self.shape.taps * self.rows_at_once
        return (block * self.channels + channel) * self.slices * per_channel + (
            index * count * per_channel
        )

    @property
    def weights_size(self) -> int:
        """Floats of the packed weights."""
        blocks = self.shape.groups * self.k_blocks
        return blocks * self.channels * self.slices * self.shape.taps * self.rows_at_once


def choose_kind(shape: ConvShape, lanes: int) -> str:
    """How inputs are copied: see the module's text."""
    if shape.taps == 1:
        return "tiled"
    waste = round_up(shape.ow, lanes) / shape.ow - 1
    return "plain" if shape.stride[1] == 1 and waste <= PLAIN_WASTE else "shifted"


@lru_cache(maxsize=1024)
def direct_layout(plan: LayerPlan, lanes: int) -> DirectLayout:
    """The memory of the direct kernel for ``plan`` on vectors of ``lanes`` float32.

    The plan's ``panel_vectors``, ``k_block`` and ``channel_block`` are upper limits; 0 is no limit.

    Raises:
        ShapeError: see :func:`tvm_sparsewino.geometry.check_shape`.
    """
    shape = plan.conv
    check_shape(shape)
    kind = choose_kind(shape, lanes)
    rows = panel_rows(shape.oh, shape.ow, lanes, kind != "plain", plan.panel_vectors)
    return DirectLayout(shape, lanes, rows, *channel_sizes(plan), kind)
