"""Winograd weights of equally long rows ("balanced") or one pattern for all coordinates ("kernel").

Output channels are cut into blocks of ``k_block``, and blocks into slices of ``R = rows_at_once``
rows. A slice that is not full is completed by rows that write to a spare row of the scratch.

"balanced", operands in this order; rows lie in the order of the weights:
    ``steps``   int32 [1]: of every slice, the longest row's nonzeros
    ``rows``    int32 [blocks * slices * R]: where each row is written in the scratch
    ``offsets`` int32 [blocks * alpha^2 * slices * steps * R]: where the input channel lies
    ``values``  float32, as many

"kernel", operands in this order; a row has what any coordinate of it has:
    ``starts``  int32 [blocks * slices + 1]: first step of each slice
    ``rows``    int32 [blocks * slices * R]: where each row is written in the scratch
    ``offsets`` int32 [steps * R]: where the step's input channel lies in the scratch
    ``values``  float32 [alpha^2 * steps * R]: block by block, in it coordinate by coordinate
    Rows of a block are sorted by their number of steps, longest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .aligned import joined
from .config import LayerPlan
from .geometry import KernelLayout
from .packing_rows import join_slices, never_empty
from .row_slices import channels_by_offset, first_input, row_slices, written_rows


def pack_balanced(weight: np.ndarray, plan: LayerPlan, layout: KernelLayout) -> tuple:
    """The arrays of "balanced" for U, float32 [alpha^2, K, C/groups]."""
    steps = int(np.count_nonzero(weight, axis=2).max(initial=0))
    rows, offsets, values = [], [], []
    for block in range(layout.k_blocks):
        slices = [list(members) for members in row_slices(plan, layout, block)]
        rows += [written_rows(plan, layout, members, block) for members in slices]
        for u in weight:
            for members in slices:
                offset, value = _slice(u[None], members, steps, plan, layout)
                offsets.append(offset)
                values.append(value)
    return (
        np.array([steps], np.int32),
        np.concatenate(rows),
        never_empty(joined(offsets)),
        never_empty(joined(values)),
    )


def unpack_balanced(weight: np.ndarray, packed: Any, layout: KernelLayout) -> None:
    """Fill ``weight``, zeros of U's shape, from the arrays of ``packed``."""
    (steps,), rows, offsets, values = packed.arrays
    if steps:
        rows = rows.reshape(layout.k_blocks, layout.slices, -1)
        size = (layout.k_blocks, len(weight), layout.slices, steps, rows.shape[2])
        offsets, values = offsets.reshape(size), values.reshape(size)
        for block, xi, index in np.ndindex(size[:3]):
            part = offsets[block, xi, index], values[None, block, xi, index]
            _fill(weight[xi : xi + 1], rows[block, index], *part, block, layout)


def pack_kernel(weight: np.ndarray, plan: LayerPlan, layout: KernelLayout) -> tuple:
    """The arrays of "kernel" for U, float32 [alpha^2, K, C/groups]."""
    counts = np.count_nonzero(weight.any(axis=0), axis=1)
    steps, rows, offsets, values = [], [], [], []
    for block in range(layout.k_blocks):
        first = block * layout.k_block
        last = min(first + layout.k_block, plan.conv.k)
        order = first + np.argsort(-counts[first:last], kind="stable")
        of_block = []
        for at in range(0, layout.slices * plan.rows_at_once, plan.rows_at_once):
            members = order[at : at + plan.rows_at_once]
            steps.append(int(counts[members].max(initial=0)))
            offset, value = _slice(weight, members, steps[-1], plan, layout)
            rows.append(written_rows(plan, layout, members, block))
            offsets.append(offset)
            of_block.append(value.reshape(len(weight), -1))
        values.append(np.concatenate(of_block, axis=1).ravel())
    return join_slices(steps, rows, offsets, values)


def unpack_kernel(weight: np.ndarray, packed: Any, layout: KernelLayout) -> None:
    """Fill ``weight``, zeros of U's shape, from the arrays of ``packed``."""
    starts, rows, offsets, values = packed.arrays
    width, coordinates = packed.plan.rows_at_once, len(weight)
    for block in range(layout.k_blocks):
        edges = starts[block * layout.slices : (block + 1) * layout.slices + 1]
        first, total = edges[0], edges[-1] - edges[0]
        begin = first * width * coordinates
        of_block = values[begin : begin + total * width * coordinates]
        of_block = of_block.reshape(coordinates, total, width)
        for index in range(layout.slices):
            start, stop = edges[index], edges[index + 1]
            number = (block * layout.slices + index) * width
            offset = offsets[start * width : stop * width].reshape(-1, width)
            value = of_block[:, start - first : stop - first]
            _fill(weight, rows[number : number + width], offset, value, block, layout)


def _slice(
    weight: np.ndarray, members: Sequence[int], steps: int, plan: LayerPlan, layout: KernelLayout
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets [steps * R] and values [coordinates * steps * R] of rows with a common pattern."""
    offsets = np.full((steps, plan.rows_at_once), layout.v.channel_offset(0), np.int32)
    values = np.zeros((len(weight), steps, plan.rows_at_once), np.float32)
    for lane, k in enumerate(members):
        columns = np.flatnonzero(weight[:, k].any(axis=0))
        first = first_input(plan, k)
        # Padding steps read the row's own group: 0 * NaN of another must not enter.
        offsets[:, lane] = layout.v.channel_offset(first)
        offsets[: len(columns), lane] = layout.v.channel_offset(first + columns)
        values[:, : len(columns), lane] = weight[:, k, columns]
    return offsets.ravel(), values.ravel()


def _fill(
    weight: np.ndarray,
    rows: np.ndarray,
    offsets: np.ndarray,
    values: np.ndarray,
    block: int,
    layout: KernelLayout,
) -> None:
    """The inverse of :func:`_slice`: offsets [steps, R], values [coordinates, steps, R]."""
    channel_at = channels_by_offset(layout.v, layout.v.channels)
    row_at = channels_by_offset(layout.product, layout.dummy_row)
    first = block * layout.k_block - layout.first_row(block)
    for lane, written in enumerate(rows):
        k = row_at.get(int(written))
        for step in range(len(offsets) if k is not None else 0):
            column = channel_at[int(offsets[step, lane])] % weight.shape[2]
            # Padding steps repeat an input that may have a value of its own.
            weight[:, first + k, column] += values[:, step, lane]
