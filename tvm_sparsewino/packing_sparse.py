"""Spatial weights as the sparse direct kernel reads them.

Output channels of a group are cut into blocks of ``k_block``, input channels into parts of
``channel_block``. The output channels of a block are sorted by their number of nonzeros in a part,
longest first, and taken ``R = rows_at_once`` at a time as slices. Operands, in this order:
    ``starts``  int32 [blocks * parts * slices + 1]: first step of each slice; its steps are the
                slice's longest row, shorter rows are padded with zeros
    ``rows``    int32 [blocks * parts * slices * R]: the output channel of each row, counted from
                its block's first; ``k_block`` for none
    ``offsets`` int32 [steps * R]: where the step's input lies, counted from the pixel's own place
                (:meth:`.geometry_sparse.SparseLayout.tap_offset` and the channel's stride)
    ``values``  float32 [steps * R]
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .config import LayerPlan
from .errors import WeightsError
from .geometry_sparse import SparseLayout, sparse_layout


def pack_sparse_direct(
    weight: np.ndarray, plan: LayerPlan, lanes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pack float32 [K, C/groups, r, s] for the kernel that ``plan`` describes.

    Raises:
        WeightsError: another shape or dtype, NaN or infinity.
        ShapeError: a shape that no kernel can take.
    """
    layout, shape = sparse_layout(plan, lanes), plan.conv
    expected = (shape.k, layout.channels, shape.r, shape.s)
    if weight.shape != expected or weight.dtype != np.float32:
        raise WeightsError(f"weights must be float32 {expected}, got {weight.dtype} {weight.shape}")
    if not np.isfinite(weight).all():
        raise WeightsError("weights hold NaN or infinity")
    places = tap_places(layout)
    flat = weight.reshape(shape.k, -1)
    starts, rows, offsets, values = [np.zeros(1, int)], [], [], []
    for members, inputs in parts(layout):
        part = flat[members.start : members.stop, inputs]
        order, steps, offset, value = _pack_part(part, places, layout)
        written = np.full(layout.slices * layout.rows_at_once, layout.k_block)
        written[: len(order)] = order
        starts.append(starts[-1][-1] + np.cumsum(steps))
        rows.append(written)
        offsets.append(offset)
        values.append(value)
    return (
        np.concatenate(starts).astype(np.int32),
        np.concatenate(rows).astype(np.int32),
        _never_empty(np.concatenate(offsets), np.int32),
        _never_empty(np.concatenate(values), np.float32),
    )


def unpack_sparse_direct(arrays: tuple[np.ndarray, ...], plan: LayerPlan, lanes: int) -> np.ndarray:
    """The inverse of :func:`pack_sparse_direct`: float32 [K, C/groups, r, s]."""
    starts, rows, offsets, values = arrays
    layout, shape = sparse_layout(plan, lanes), plan.conv
    width, places = layout.rows_at_once, tap_places(layout)
    order = np.argsort(places)
    weight = np.zeros((shape.k, layout.channels * shape.taps), np.float32)
    for number, (members, inputs) in enumerate(parts(layout)):
        first, end = number * layout.slices, (number + 1) * layout.slices
        used = slice(starts[first] * width, starts[end] * width)
        steps = np.diff(starts[first : end + 1])
        row = np.repeat(rows[first * width : end * width].reshape(-1, width), steps, axis=0).ravel()
        alive = values[used] != 0
        column = order[np.searchsorted(places[order], offsets[used][alive])]
        weight[members.start + row[alive], inputs.start + column] = values[used][alive]
    return weight.reshape(shape.k, layout.channels, shape.r, shape.s)


def tap_places(layout: SparseLayout) -> np.ndarray:
    """Offset of every weight of an output channel in a part, in the order of [channels, r, s]."""
    shape = layout.shape
    taps = [layout.tap_offset(i, j) for i in range(shape.r) for j in range(shape.s)]
    channels = np.arange(layout.channel_block) * layout.channel_stride
    return (channels[:, None] + np.array(taps)).ravel()


def parts(layout: SparseLayout) -> Iterator[tuple[range, slice]]:
    """Output channels, and places of the weights in them, of every part of every block."""
    taps = layout.shape.taps
    for group in range(layout.shape.groups):
        end = (group + 1) * layout.per_group
        for k in range(group * layout.per_group, end, layout.k_block):
            members = range(k, min(k + layout.k_block, end))
            for c in range(0, layout.channels, layout.channel_block):
                last = min(c + layout.channel_block, layout.channels)
                yield members, slice(c * taps, last * taps)


def _pack_part(
    weight: np.ndarray, places: np.ndarray, layout: SparseLayout
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one part: their order, steps per slice, offsets and values."""
    width = layout.rows_at_once
    counts = np.count_nonzero(weight, axis=1)
    order = np.argsort(-counts, kind="stable")
    weight, counts = weight[order], counts[order]
    steps = np.zeros(layout.slices, int)
    longest = counts[::width]
    steps[: len(longest)] = longest
    # Padding steps read the first tap: an input that the row reads anyway, were it dense.
    offset = np.full((steps.sum(), width), places[0], np.int32)
    value = np.zeros(offset.shape, np.float32)
    row, column = np.nonzero(weight)
    slice_starts, row_starts = np.cumsum(steps) - steps, np.cumsum(counts) - counts
    step = slice_starts[row // width] + np.arange(len(row)) - row_starts[row]
    offset[step, row % width] = places[column]
    value[step, row % width] = weight[row, column]
    return order, steps, offset.ravel(), value.ravel()


def _never_empty(array: np.ndarray, dtype: type) -> np.ndarray:
    """A buffer of no elements cannot be passed; a layer of zeros gets one that is never read."""
    return (array if len(array) else np.zeros(1)).astype(dtype)
