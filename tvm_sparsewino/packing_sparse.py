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
from .geometry_sparse import SparseLayout, sparse_layout
from .packing_rows import check_weights, join_slices, sort_rows


def pack_sparse_direct(
    weight: np.ndarray, plan: LayerPlan, lanes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pack float32 [K, C/groups, r, s] for the kernel that ``plan`` describes.

    Raises:
        WeightsError: another shape or dtype, NaN or infinity.
        ShapeError: a shape that no kernel can take.
    """
    layout, shape = sparse_layout(plan, lanes), plan.conv
    check_weights(weight, (shape.k, layout.channels, shape.r, shape.s))
    places = tap_places(layout).astype(np.int32)
    flat = weight.reshape(shape.k, -1)
    steps, rows, offsets, values = [], [], [], []
    for members, inputs in parts(layout):
        part = flat[members.start : members.stop, inputs]
        cut = sort_rows(part, layout.slices, layout.rows_at_once)
        steps.append(cut.steps)
        rows.append(cut.written(layout.k_block))
        # Padding steps read the first tap: an input that the row reads anyway, were it dense.
        offsets.append(cut.place(places[0], places[cut.column]))
        values.append(cut.values.ravel())
    return join_slices(np.concatenate(steps), rows, offsets, values)


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
