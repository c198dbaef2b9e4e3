"""Which output channels a kernel computes together, and how it cuts the vectors of a panel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .config import LayerPlan
from .geometry import KernelLayout, Scratch, ceil_div


def row_slices(plan: LayerPlan, layout: KernelLayout, block: int) -> list[range]:
    """The output channels of every slice of a block, at most ``rows_at_once`` adjacent ones.

    Slices never cross a group's border; empty ones complete the block.
    """
    start = block * layout.k_block
    stop = min(start + layout.k_block, plan.conv.k)
    per_group = plan.conv.k // plan.conv.groups
    slices = []
    while start < stop:
        end = min(start + plan.rows_at_once, stop, (start // per_group + 1) * per_group)
        slices.append(range(start, end))
        start = end
    return slices + [range(0)] * (layout.slices - len(slices))


def vector_parts(vectors: int, rows: int, registers: int) -> list[int]:
    """Cut ``vectors`` of a panel evenly into parts for rows that share their inputs.

    A part's accumulators, the smaller of its operands and one of the other fit ``registers``.
    """
    fitting = [n for n in range(1, vectors + 1) if rows * n + min(rows, n) + 1 <= registers]
    count = ceil_div(vectors, max(fitting, default=1))
    return [(vectors + i) // count for i in range(count)]


def first_input(plan: LayerPlan, output_channel: int | np.ndarray) -> int | np.ndarray:
    """The first input channel of the group that ``output_channel`` belongs to, or of each."""
    shape = plan.conv
    return output_channel // (shape.k // shape.groups) * (shape.c // shape.groups)


def channels_by_offset(scratch: Scratch, count: int) -> dict[int, int]:
    """Which of the first ``count`` channels lies at each offset of a scratch."""
    return {int(scratch.channel_offset(channel)): channel for channel in range(count)}


def written_rows(
    plan: LayerPlan, layout: KernelLayout, members: Sequence[int], block: int
) -> np.ndarray:
    """Where the products of a slice's rows are written; rows that are missing have a spare one."""
    rows = np.full(plan.rows_at_once, layout.dummy_row)
    inside = np.array(members, int) - block * layout.k_block
    rows[: len(members)] = inside + layout.first_row(block)
    return layout.product.channel_offset(rows).astype(np.int32)
