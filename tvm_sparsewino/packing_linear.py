"""Weights of linear layers as the kernels read them, from [K, C] as frameworks hold them.

Dense, one operand: ``values`` float32 [blocks of output features][C][width], zeros completing the
last block: a kernel reads it once, from its start to its end.

Sparse, for every (block of output features, block of input features) in turn slices of
``slice_rows`` output features, sorted by their number of nonzeros so that those of a slice are
about equally long; shorter ones are completed by zeros:
    ``starts``  int32 [blocks * c_blocks * slices + 1]: first step of each slice
    ``rows``    int32 [blocks * c_blocks * slices * slice_rows]: output feature within its block;
                ``k_block`` for those that complete a slice
    ``inputs``  uint16 [steps * slice_rows]: input feature within its block
    ``values``  float32 [steps * slice_rows]
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .aligned import zeros
from .geometry_linear import DenseLinearLayout, SparseLinearLayout
from .packing_rows import check_weights, join_slices, sort_rows


def pack_linear(
    weight: np.ndarray, layout: DenseLinearLayout | SparseLinearLayout
) -> tuple[np.ndarray, ...]:
    """Pack float32 [K, C] for the kernel of ``layout``.

    Raises:
        WeightsError: another shape or dtype, NaN or infinity.
    """
    check_weights(weight, (layout.shape.k, layout.shape.c))
    if isinstance(layout, DenseLinearLayout):
        return (_pack_dense(weight, layout),)
    return _pack_sparse(weight, layout)


def unpack_linear(
    arrays: tuple[np.ndarray, ...], layout: DenseLinearLayout | SparseLinearLayout
) -> np.ndarray:
    """The inverse of :func:`pack_linear`: float32 [K, C]."""
    k, c = layout.shape.k, layout.shape.c
    if isinstance(layout, DenseLinearLayout):
        values = arrays[0].reshape(layout.blocks, c, layout.width)
        return np.ascontiguousarray(values.transpose(0, 2, 1).reshape(-1, c)[:k])
    starts, rows, inputs, values = arrays
    weight = np.zeros((layout.padded_k + 1, c), np.float32)
    width = layout.slice_rows
    for number in range(len(starts) - 1):
        part, _ = divmod(number, layout.slices)
        block, c_part = divmod(part, layout.c_blocks)
        for row in range(width):
            local = rows[number * width + row]
            if local == layout.k_block:
                continue
            at = np.arange(starts[number], starts[number + 1]) * width + row
            features = inputs[at].astype(int) + c_part * layout.c_block
            np.add.at(weight, (block * layout.k_block + local, features), values[at])
    return weight[:k]


def pack_bias(bias: np.ndarray, layout: DenseLinearLayout | SparseLinearLayout) -> np.ndarray:
    """A bias [K] completed by zeros, so that kernels read whole vectors of it."""
    packed = np.zeros(layout.padded_k, np.float32)
    packed[: len(bias)] = bias
    return packed


def _pack_dense(weight: np.ndarray, layout: DenseLinearLayout) -> np.ndarray:
    c, width = layout.shape.c, layout.width
    values = zeros((layout.blocks, c, width), np.float32)
    for block, part in enumerate(values):
        rows = weight[block * width : (block + 1) * width]
        part[:, : len(rows)] = rows.T
    return values.reshape(-1)


def _pack_sparse(weight: np.ndarray, layout: SparseLinearLayout) -> tuple[np.ndarray, ...]:
    steps, rows, inputs, values = [], [], [], []
    for part in _parts(weight, layout):
        cut = sort_rows(part, layout.slices, layout.slice_rows)
        steps.append(cut.steps)
        rows.append(cut.written(layout.k_block))
        inputs.append(cut.place(0, cut.column.astype(np.uint16)))
        values.append(cut.values.ravel())
    return join_slices(np.concatenate(steps), rows, inputs, values)


def _parts(weight: np.ndarray, layout: SparseLinearLayout) -> Iterator[np.ndarray]:
    for block in range(layout.blocks):
        members = weight[block * layout.k_block : (block + 1) * layout.k_block]
        for part in range(layout.c_blocks):
            yield members[:, part * layout.c_block : (part + 1) * layout.c_block]
