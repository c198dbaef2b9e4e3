"""Memory of the direct convolution: how output pixels become vector lanes. Pure integers.

A *panel* is a run of whole output rows of one image. Its input rows are copied, with their
padding, into scratch, a block of channels at a time, in one of two ways:

*plain*: one copy whose rows are as wide as the padded map. Vectors run along one output row; the
last of a row may be partly empty.

*shifted*: one copy per filter column, shifted by that column, taken apart by stride and without
borders, so that every row is as wide as the output. Vectors run along all pixels of the panel, and
only its last one may be partly empty. It costs ``r`` times the scratch, and takes any stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from .config import ConvShape, LayerPlan
from .errors import ShapeError
from .geometry import CACHE_LINE, ceil_div, check_shape, round_up

SMALL_INPUT = 6 * 1024  # floats that stay in an L1 cache of 32 KiB
PLAIN_WASTE = 0.04  # share of empty lanes up to which whole vectors per row are taken


@dataclass(frozen=True)
class DirectLayout:
    """Everything about memory that packing and kernel must agree on.

    Attributes:
        shape: the convolution.
        lanes: float32 lanes of a vector.
        stride, dilation: of the filter, the same in both dimensions.
        rows: output rows of a panel.
        copies: copies of the input rows: 1 (plain) or r (shifted).
        rows_at_once: output channels of one register block.
        k_block: output channels of one task; never across a group's border.
        channel_block: input channels in scratch at a time.
    """

    shape: ConvShape
    lanes: int
    stride: int
    dilation: int
    rows: int
    copies: int
    rows_at_once: int
    k_block: int
    channel_block: int

    @property
    def oh(self) -> int:
        """Output height."""
        return output_size(self.shape, self.stride, self.dilation)[0]

    @property
    def ow(self) -> int:
        """Output width."""
        return output_size(self.shape, self.stride, self.dilation)[1]

    @property
    def channels(self) -> int:
        """Input channels of a group."""
        return self.shape.c // self.shape.groups

    @property
    def per_group(self) -> int:
        """Output channels of a group."""
        return self.shape.k // self.shape.groups

    @property
    def taps(self) -> int:
        """Filter taps per channel."""
        return self.shape.r * self.shape.r

    # ---- tasks ----

    @property
    def panels(self) -> int:
        """Panels of one image."""
        return ceil_div(self.oh, self.rows)

    @property
    def k_blocks(self) -> int:
        """Blocks of output channels in a group."""
        return ceil_div(self.per_group, self.k_block)

    @property
    def slices(self) -> int:
        """Register blocks of output channels in a block."""
        return ceil_div(self.k_block, self.rows_at_once)

    @property
    def channel_blocks(self) -> int:
        """Blocks of input channels in a group."""
        return ceil_div(self.channels, self.channel_block)

    @property
    def tasks(self) -> int:
        """Independent pieces of work: images x groups x blocks of output channels x panels."""
        return self.shape.n * self.shape.groups * self.k_blocks * self.panels

    # ---- lanes ----

    @property
    def is_flat(self) -> bool:
        """Whether vectors run over row borders."""
        return self.copies == self.shape.r

    @property
    def row_vectors(self) -> int:
        """Vectors of one output row (plain)."""
        return ceil_div(self.ow, self.lanes)

    @property
    def vectors(self) -> int:
        """Vectors of a full panel."""
        if self.is_flat:
            return ceil_div(self.rows * self.ow, self.lanes)
        return self.rows * self.row_vectors

    # ---- scratch ----

    @property
    def phase_rows(self) -> int:
        """Input rows of a panel that have the same remainder by the stride."""
        reach = (self.shape.r - 1) * self.dilation
        return self.rows + reach // self.stride

    @property
    def phases(self) -> int:
        """Remainders by the stride that some filter row reads."""
        return min(self.stride, (self.shape.r - 1) * self.dilation + 1)

    @property
    def row_stride(self) -> int:
        """Floats from one copied row to the next."""
        if self.is_flat:
            return self.ow
        padded = self.shape.w + self.shape.padding[1] + self.shape.padding[3]
        reach = self.row_vectors * self.lanes + (self.shape.r - 1) * self.dilation
        return round_up(max(padded, reach), self.lanes)

    @property
    def copy_stride(self) -> int:
        """Floats from one copy to the next; the last vector of a panel stays inside."""
        whole = self.phases * self.phase_rows * self.row_stride
        return round_up(whole + self.lanes - 1, self.lanes) if self.is_flat else whole

    @property
    def channel_stride(self) -> int:
        """Floats from one channel to the next: an odd number of cache lines, against aliasing."""
        return (ceil_div(self.copies * self.copy_stride, CACHE_LINE) | 1) * CACHE_LINE

    @property
    def scratch_size(self) -> int:
        """Floats of the copied rows of a block of channels; vectors may reach a little beyond."""
        return self.channel_block * self.channel_stride + self.lanes

    @property
    def slices_outside(self) -> bool:
        """Whether the copied rows stay in L1 beside the weights while output channels pass."""
        return self.scratch_size <= SMALL_INPUT

    def row_offset(self, i: int) -> int:
        """Where filter row ``i`` of the panel's first output row lies in a copy."""
        phase, row = i * self.dilation % self.stride, i * self.dilation // self.stride
        return (phase * self.phase_rows + row) * self.row_stride

    def tap_offset(self, i: int, j: int) -> int:
        """Where the input of tap (i, j) of the panel's first pixel lies, from its channel."""
        column = j * self.copy_stride if self.is_flat else j * self.dilation
        return self.row_offset(i) + column

    @property
    def sums_stride(self) -> int:
        """Floats from one output channel's partial sums to the next."""
        return self.vectors * self.lanes

    # ---- packed weights ----

    def weights_offset(self, block, channel, count, index):
        """Where in the packed weights a slice's part of a block of channels starts.

        Args:
            block: the block of output channels, counted through the groups.
            channel: first input channel of the block of channels.
            count: its channels.
            index: the slice.
        """
        per_channel = self.taps * self.rows_at_once
        return (block * self.channels + channel) * self.slices * per_channel + (
            index * count * per_channel
        )

    @property
    def weights_size(self) -> int:
        """Floats of the packed weights."""
        blocks = self.shape.groups * self.k_blocks
        return blocks * self.channels * self.slices * self.taps * self.rows_at_once


def filter_step(shape: ConvShape) -> tuple[int, int]:
    """Stride and dilation of a square filter, each the same in both dimensions.

    Raises:
        ShapeError: another filter, stride or dilation.
    """
    pairs = (shape.stride, shape.dilation, (shape.r, shape.s))
    if any(y != x for y, x in pairs):
        raise ShapeError(
            f"the dense direct kernel takes square filters, strides and dilations, not "
            f"{shape.r}x{shape.s}, {shape.stride}, {shape.dilation}"
        )
    return shape.stride[0], shape.dilation[0]


def output_size(shape: ConvShape, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Height and width of the output."""
    reach = (shape.r - 1) * dilation + 1
    top, left, bottom, right = shape.padding
    return (
        (shape.h + top + bottom - reach) // stride + 1,
        (shape.w + left + right - reach) // stride + 1,
    )


def choose_copies(shape: ConvShape, lanes: int, stride: int = 1, dilation: int = 1) -> int:
    """1 where whole vectors per row waste little, else r."""
    _, ow = output_size(shape, stride, dilation)
    waste = round_up(ow, lanes) / ow - 1
    return 1 if stride == 1 and waste <= PLAIN_WASTE else shape.r


def panel_rows(oh: int, ow: int, lanes: int, copies: int, vectors: int) -> int:
    """Output rows of a panel of at most ``vectors`` vectors, at least one, even among panels."""
    most = vectors * lanes // ow if copies > 1 else vectors // ceil_div(ow, lanes)
    return ceil_div(oh, ceil_div(oh, min(max(most, 1), oh)))


@lru_cache(maxsize=1024)
def direct_layout(plan: LayerPlan, lanes: int, stride: int = 0, dilation: int = 0) -> DirectLayout:
    """The memory of the direct kernel for ``plan`` on vectors of ``lanes`` float32.

    The plan's ``panel_vectors``, ``k_block`` and ``channel_block`` are upper limits; 0 is no limit.
    A stride or dilation of 0 is that of the shape.

    Raises:
        ShapeError: see :func:`tvm_sparsewino.geometry.check_shape` and :func:`filter_step`.
    """
    shape = plan.conv
    check_shape(shape)
    own = filter_step(shape)
    stride, dilation = stride or own[0], dilation or own[1]
    oh, ow = output_size(shape, stride, dilation)
    copies = choose_copies(shape, lanes, stride, dilation)
    per_group, channels = shape.k // shape.groups, shape.c // shape.groups
    limit = plan.panel_vectors or oh * ceil_div(ow, lanes)
    return DirectLayout(
        shape,
        lanes,
        stride,
        dilation,
        panel_rows(oh, ow, lanes, copies, limit),
        copies,
        min(plan.rows_at_once, per_group),
        min(plan.k_block or per_group, per_group),
        min(plan.channel_block or channels, channels),
    )
