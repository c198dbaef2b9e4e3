"""How direct convolutions are cut: output rows into panels, channels into blocks. Pure integers."""

from __future__ import annotations

from dataclasses import dataclass

from .config import ConvShape, LayerPlan
from .geometry import ceil_div

SMALL_INPUT = 6 * 1024  # floats that stay in an L1 cache of 32 KiB


@dataclass(frozen=True)
class RowPanels:
    """Panels of whole output rows.

    Attributes:
        shape: the convolution.
        lanes: float32 lanes of a vector.
        rows: output rows of a panel.
    """

    shape: ConvShape
    lanes: int
    rows: int

    @property
    def total_rows(self) -> int:
        """What panels cut."""
        return self.shape.oh

    @property
    def panels(self) -> int:
        """Panels of one image."""
        return ceil_div(self.total_rows, self.rows)

    @property
    def row_vectors(self) -> int:
        """Vectors of one output row."""
        return ceil_div(self.shape.ow, self.lanes)

    @property
    def phase_rows(self) -> int:
        """Input rows of a panel that have the same remainder by the vertical stride."""
        return self.rows + (self.shape.extent[0] - 1) // self.shape.stride[0]


@dataclass(frozen=True)
class BlockedPanels(RowPanels):
    """Panels whose output channels are computed in blocks, and summed over blocks of inputs.

    Attributes:
        rows_at_once: output channels computed together, those of a slice.
        k_block: output channels of one task; never across a group's border.
        channel_block: input channels that are read before the sums are put aside.
    """

    rows_at_once: int
    k_block: int
    channel_block: int

    @property
    def channels(self) -> int:
        """Input channels of a group."""
        return self.shape.c // self.shape.groups

    @property
    def per_group(self) -> int:
        """Output channels of a group."""
        return self.shape.k // self.shape.groups

    @property
    def k_blocks(self) -> int:
        """Blocks of output channels in a group."""
        return ceil_div(self.per_group, self.k_block)

    @property
    def slices(self) -> int:
        """Slices of ``rows_at_once`` output channels in a block."""
        return ceil_div(self.k_block, self.rows_at_once)

    @property
    def channel_blocks(self) -> int:
        """Blocks of input channels in a group."""
        return ceil_div(self.channels, self.channel_block)

    @property
    def tasks(self) -> int:
        """Independent pieces of work: images x groups x blocks of output channels x panels."""
        return self.shape.n * self.shape.groups * self.k_blocks * self.panels


@dataclass(frozen=True)
class CopiedRow:
    """Which elements of a row of the map a copied row holds.

    Attributes:
        first: column of the map that its first element comes from; may be negative.
        step: columns from one element to the next.
        length: elements of the copied row.
        width: columns of the map.
    """

    first: int
    step: int
    length: int
    width: int

    @property
    def start(self) -> int:
        """The first element that lies in the map; those before are padding."""
        return min(ceil_div(max(-self.first, 0), self.step), self.length)

    @property
    def stop(self) -> int:
        """The end of those in the map; the rest is padding."""
        return max(min(ceil_div(self.width - self.first, self.step), self.length), self.start)


def even_share(total: int, most: int) -> int:
    """The size of the parts that ``total`` is cut into evenly, at least 1 and at most ``most``."""
    return ceil_div(total, ceil_div(total, min(max(most, 1), total)))


def panel_rows(oh: int, ow: int, lanes: int, flat: bool, vectors: int) -> int:
    """Output rows of a panel of at most ``vectors`` vectors, at least one, even among panels.

    Args:
        oh, ow: the output map.
        lanes: float32 lanes of a vector.
        flat: whether vectors run over row borders.
        vectors: of a panel; 0 is no limit.
    """
    if not vectors:
        return oh
    return even_share(oh, vectors * lanes // ow if flat else vectors // ceil_div(ow, lanes))


def channel_sizes(plan: LayerPlan) -> tuple[int, int, int]:
    """``rows_at_once``, ``k_block`` and ``channel_block`` of a plan, within the layer's groups.

    In the plan they are upper limits; 0 is no limit.
    """
    shape = plan.conv
    per_group, channels = shape.k // shape.groups, shape.c // shape.groups
    return (
        min(plan.rows_at_once, per_group),
        min(plan.k_block or per_group, per_group),
        min(plan.channel_block or channels, channels),
    )
