"""Winograd weights as the kernels read them.

Output channels are cut into blocks of ``k_block``; for every (block, coordinate) its rows (output
channels) are grouped into slices of ``R = rows_at_once``. A slice that is not full is completed by
rows that write to a spare row of the scratch.

Sparse, operands in this order:
    ``starts``  int32 [blocks * alpha^2 * slices + 1]: first step of each slice; its steps are the
                slice's longest row, shorter rows are padded with zeros
    ``rows``    int32 [blocks * alpha^2 * slices * R]: where each row is written in the scratch
    ``offsets`` int32 [steps * R]: where the step's input channel lies in the scratch
    ``values``  float32 [steps * R]
    Rows of a (block, coordinate) are sorted by their number of nonzeros, longest first, so that
    rows of a slice are about equally long and the trip counts of consecutive slices repeat.
    Zeros of another structure than "unstructured": see :mod:`.packing_structured`.

Dense, operands in this order:
    ``rows``    int32 [blocks * slices * R]
    ``inputs``  int32 [blocks * slices]: first input channel of the slice's group
    ``values``  float32 [blocks * alpha^2 * slices * C/groups * R]
    Slices never cross a group's border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .aligned import zeros
from .config import LayerPlan
from .errors import ConfigError
from .geometry import KernelLayout, kernel_layout
from .packing_direct import pack_direct, unpack_direct
from .packing_rows import check_weights, join_slices, sort_rows
from .packing_sparse import pack_sparse_direct, unpack_sparse_direct
from .packing_structured import STRUCTURED_FORMATS
from .row_slices import channels_by_offset, first_input, row_slices, written_rows


@dataclass(frozen=True)
class PackedWeights:
    """Packed arrays, in the kernel's operand order, and what they were packed for."""

    plan: LayerPlan
    lanes: int
    arrays: tuple[np.ndarray, ...]

    @property
    def specs(self) -> tuple[tuple[tuple[int, ...], str], ...]:
        """Shape and dtype of every array."""
        return tuple((a.shape, a.dtype.name) for a in self.arrays)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in self.arrays)


def pack(weight: np.ndarray, plan: LayerPlan, lanes: int) -> PackedWeights:
    """Pack U, float32 [alpha^2, K, C/groups], for the kernel that ``plan`` describes.

    "dense_direct" and "sparse_direct" take spatial weights instead, float32 [K, C/groups, r, s].

    Raises:
        ConfigError: a plan that has no kernel.
        WeightsError: another shape or dtype, NaN or infinity.
    """
    if plan.algorithm == "dense_direct":
        return PackedWeights(plan, lanes, pack_direct(weight, plan, lanes))
    if plan.algorithm == "sparse_direct":
        return PackedWeights(plan, lanes, pack_sparse_direct(weight, plan, lanes))
    packer, _ = _format(plan)
    layout = kernel_layout(plan, lanes)
    shape = plan.conv
    check_weights(weight, (layout.v.coordinates, shape.k, shape.c // shape.groups))
    return PackedWeights(plan, lanes, packer(weight, plan, layout))


def unpack(packed: PackedWeights) -> np.ndarray:
    """The inverse of :func:`pack`: U [alpha^2, K, C/groups] or spatial weights, float32."""
    if packed.plan.algorithm == "dense_direct":
        return unpack_direct(packed.arrays[0], packed.plan, packed.lanes)
    if packed.plan.algorithm == "sparse_direct":
        return unpack_sparse_direct(packed.arrays, packed.plan, packed.lanes)
    _, unpacker = _format(packed.plan)
    layout, shape = kernel_layout(packed.plan, packed.lanes), packed.plan.conv
    weight = np.zeros((layout.v.coordinates, shape.k, shape.c // shape.groups), np.float32)
    unpacker(weight, packed, layout)
    return weight


def _format(plan: LayerPlan) -> tuple[Callable, Callable]:
    """What packs and what unpacks the weights of ``plan``."""
    if plan.structure in STRUCTURED_FORMATS:
        return STRUCTURED_FORMATS[plan.structure]
    if plan.algorithm == "sparse_winograd":
        return _pack_sparse, _unpack_sparse
    if plan.algorithm == "dense_winograd":
        return _pack_dense, _unpack_dense
    raise ConfigError(f"there is no packing for algorithm {plan.algorithm!r}")


def _pack_sparse(weight: np.ndarray, plan: LayerPlan, layout: KernelLayout) -> tuple:
    width = plan.rows_at_once
    first_inputs = first_input(plan, np.arange(plan.conv.k))
    steps, rows, offsets, values = [], [], [], []
    for block in range(layout.k_blocks):
        members = slice(block * layout.k_block, (block + 1) * layout.k_block)
        for u in weight[:, members]:
            cut = sort_rows(u, layout.slices, width)
            first = first_inputs[members][cut.order]
            # Padding steps read the row's own group: 0 * NaN of another must not enter.
            idle = np.full(layout.slices * width, layout.v.channel_offset(0), np.int32)
            idle[: len(first)] = layout.v.channel_offset(first)
            padding = np.repeat(idle.reshape(-1, width), cut.steps, axis=0)
            offset = layout.v.channel_offset(first[cut.row] + cut.column).astype(np.int32)
            steps.append(cut.steps)
            row = layout.first_row(block)
            written = row + cut.written(layout.dummy_row - row)
            rows.append(layout.product.channel_offset(written))
            offsets.append(cut.place(padding, offset))
            values.append(cut.values.ravel())
    return join_slices(np.concatenate(steps), rows, offsets, values)


def _unpack_sparse(weight: np.ndarray, packed: PackedWeights, layout: KernelLayout) -> None:
    starts, rows, offsets, values = packed.arrays
    plan, width = packed.plan, packed.plan.rows_at_once
    channels = plan.conv.c // plan.conv.groups
    channel_at = channels_by_offset(layout.v, layout.v.channels)
    row_at = channels_by_offset(layout.product, layout.dummy_row)
    for index in range(len(starts) - 1):
        block, rest = divmod(index, layout.v.coordinates * layout.slices)
        for lane in range(width):
            row = row_at.get(int(rows[index * width + lane]))
            if row is None:
                continue
            for p in range(starts[index] * width + lane, starts[index + 1] * width, width):
                if values[p]:
                    column = channel_at[int(offsets[p])] % channels
                    k = block * layout.k_block + row - layout.first_row(block)
                    weight[rest // layout.slices, k, column] = values[p]


def _pack_dense(weight: np.ndarray, plan: LayerPlan, layout: KernelLayout) -> tuple:
    values = zeros(_dense_shape(weight, plan, layout), np.float32)
    rows, inputs = [], []
    for block in range(layout.k_blocks):
        for index, members in enumerate(row_slices(plan, layout, block)):
            rows.append(written_rows(plan, layout, members, block))
            inputs.append(first_input(plan, members.start))
            part = weight[:, members.start : members.stop]
            values[block, :, index, :, : len(members)] = part.transpose(0, 2, 1)
    return np.concatenate(rows), np.array(inputs, np.int32), values.ravel()


def _unpack_dense(weight: np.ndarray, packed: PackedWeights, layout: KernelLayout) -> None:
    values = packed.arrays[2].reshape(_dense_shape(weight, packed.plan, layout))
    for block in range(layout.k_blocks):
        for index, members in enumerate(row_slices(packed.plan, layout, block)):
            part = values[block, :, index, :, : len(members)]
            weight[:, members.start : members.stop] = part.transpose(0, 2, 1)


def _dense_shape(weight: np.ndarray, plan: LayerPlan, layout: KernelLayout) -> tuple[int, ...]:
    """Of the values: [blocks, coordinates, slices, C/groups, R]."""
    coordinates, _, channels = weight.shape
    return (layout.k_blocks, coordinates, layout.slices, channels, plan.rows_at_once)
