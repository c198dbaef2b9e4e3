"""Winograd weights whose zeros adjacent output channels share ("rows2", "rows4").

Output channels are cut into blocks of ``k_block``, and blocks into slices of ``R = rows_at_once``
adjacent channels, never across a group's border. What any row of a slice has is stored for all of
them. A slice that is not full is completed by rows that write to a spare row of the scratch.
Operands in this order:

    ``starts``  int32 [blocks * alpha^2 * slices + 1]: first step of each slice
    ``rows``    int32 [blocks * alpha^2 * slices * R]: where each row is written in the scratch
    ``offsets`` int32 [steps]: where the step's input channel lies in the scratch
    ``values``  float32 [steps * R]

Slices of a (block, coordinate) are sorted by their number of steps, longest first, so that trip
counts of consecutive slices repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .config import LayerPlan
from .geometry import KernelLayout
from .packing_rows import join_slices
from .row_slices import channels_by_offset, first_input, row_slices, written_rows


def pack_shared(weight: np.ndarray, plan: LayerPlan, layout: KernelLayout) -> tuple:
    """The arrays above for U, float32 [alpha^2, K, C/groups]."""
    steps, rows, offsets, values = [], [], [], []
    for block in range(layout.k_blocks):
        slices = row_slices(plan, layout, block)
        written = [written_rows(plan, layout, members, block) for members in slices]
        for u in weight:
            parts = [u[members.start : members.stop] for members in slices]
            columns = [np.flatnonzero(part.any(axis=0)) for part in parts]
            for index in sorted(range(len(slices)), key=lambda i: -len(columns[i])):
                members, used = slices[index], columns[index]
                value = np.zeros((len(used), plan.rows_at_once), np.float32)
                value[:, : len(members)] = parts[index][:, used].T
                steps.append(len(used))
                rows.append(written[index])
                inputs = first_input(plan, members.start) + used
                offsets.append(layout.v.channel_offset(inputs).astype(np.int32))
                values.append(value.ravel())
    return join_slices(steps, rows, offsets, values)


def unpack_shared(weight: np.ndarray, packed: Any, layout: KernelLayout) -> None:
    """Fill ``weight``, zeros of U's shape, from the arrays of ``packed``."""
    starts, rows, offsets, values = packed.arrays
    width = packed.plan.rows_at_once
    values = values.reshape(-1, width) if starts[-1] else values
    channel_at = channels_by_offset(layout.v, layout.v.channels)
    row_at = channels_by_offset(layout.product, layout.dummy_row)
    for index in range(len(starts) - 1):
        block, rest = divmod(index, len(weight) * layout.slices)
        part = slice(starts[index], starts[index + 1])
        columns = [channel_at[int(offset)] % weight.shape[2] for offset in offsets[part]]
        for lane, offset in enumerate(rows[index * width : (index + 1) * width]):
            row = row_at.get(int(offset))
            if row is not None and columns:
                k = block * layout.k_block + row - layout.first_row(block)
                weight[rest // layout.slices, k, columns] = values[part, lane]
