"""Memory of the depthwise convolution: planes of input channels with their padding. Pure integers.

Every input channel is a group of its own, so nothing is summed over channels. A task computes a
*panel* of output rows for a run of channels. It copies the panel's input rows, a few channels at a
time, into planes that hold the padding, taken apart by stride: one row for every remainder that
filter columns read. Vectors run along one output row; the last may be partly empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from .config import ConvShape, LayerPlan
from .geometry import ceil_div, check_shape, round_up
from .geometry_panels import RowPanels, panel_rows

# From so many output channels per input channel on, blocks of them share what is loaded.
FEW_OUTPUTS = 4


@dataclass(frozen=True)
class DepthwiseLayout(RowPanels):
    """Everything about memory that the kernel needs.

    Attributes:
        channels: input channels of a task.
        planes: input channels in scratch at a time.
    """

    channels: int
    planes: int

    @property
    def outputs(self) -> int:
        """Output channels per input channel."""
        return self.shape.k // self.shape.c

    @property
    def channel_runs(self) -> int:
        """Runs of channels that are tasks."""
        return ceil_div(self.shape.c, self.channels)

    @property
    def tasks(self) -> int:
        """Independent pieces of work."""
        return self.shape.n * self.channel_runs * self.panels

    @property
    def phases(self) -> tuple[int, int]:
        """Remainders by the stride that filter rows and columns read."""
        (down, right), (height, width) = self.shape.stride, self.shape.extent
        return min(down, height), min(right, width)

    @property
    def phase_stride(self) -> int:
        """Floats of a row of one remainder; the last vector of every tap stays inside."""
        reach = (self.shape.extent[1] - 1) // self.shape.stride[1]
        return round_up(self.row_vectors * self.lanes + reach, self.lanes)

    @property
    def row_stride(self) -> int:
        """Floats from one row to the next."""
        return self.phases[1] * self.phase_stride

    @property
    def plane_stride(self) -> int:
        """Floats of a plane."""
        return self.phases[0] * self.phase_rows * self.row_stride

    @property
    def scratch_size(self) -> int:
        """Floats of a task's planes."""
        return self.planes * self.plane_stride

    def tap_offset(self, row, j):
        """Where the input of filter column ``j`` lies, ``row`` input rows below the panel's first.

        Counted from the first pixel of the plane.
        """
        down, right = self.shape.stride
        across = j * self.shape.dilation[1]
        place = (row % down * self.phase_rows + row // down) * self.row_stride
        return place + across % right * self.phase_stride + across // right


def register_rows(vector_registers: int) -> int:
    """Output rows of a register block: their sums, beside a small filter's taps and inputs."""
    return 4 if vector_registers <= 16 else 8


def is_depthwise(shape: ConvShape) -> bool:
    """Whether every input channel is a group of its own, with few output channels."""
    return shape.groups == shape.c and shape.k < FEW_OUTPUTS * shape.c


@lru_cache(maxsize=1024)
def depthwise_layout(plan: LayerPlan, lanes: int) -> DepthwiseLayout:
    """The memory of the depthwise kernel for ``plan`` on vectors of ``lanes`` float32.

    The plan's ``panel_vectors``, ``k_block`` and ``channel_block`` are upper limits of the vectors
    of a panel, the output channels of a task and the planes; 0 is no limit.

    Raises:
        ShapeError: see :func:`tvm_sparsewino.geometry.check_shape`.
    """
    shape = plan.conv
    check_shape(shape)
    rows = panel_rows(shape.oh, shape.ow, lanes, False, plan.panel_vectors)
    channels = min(
        max(plan.k_block // (shape.k // shape.c), 1) if plan.k_block else shape.c, shape.c
    )
    return DepthwiseLayout(
        shape, lanes, rows, channels, min(plan.channel_block or channels, channels)
    )
