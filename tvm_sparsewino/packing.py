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

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .config import LayerPlan
from .errors import ConfigError, WeightsError
from .geometry import KernelLayout, kernel_layout
from .packing_direct import pack_direct, unpack_direct
from .packing_sparse import pack_sparse_direct, unpack_sparse_direct
from .packing_structured import STRUCTURED_FORMATS


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
    expected = (layout.v.coordinates, shape.k, shape.c // shape.groups)
    if weight.shape != expected or weight.dtype != np.float32:
        raise WeightsError(f"weights must be float32 {expected}, got {weight.dtype} {weight.shape}")
    if not np.isfinite(weight).all():
        raise WeightsError("weights hold NaN or infinity")
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


def _block(plan: LayerPlan, layout: KernelLayout, block: int) -> range:
    start = block * layout.k_block
    return range(start, min(start + layout.k_block, plan.conv.k))


def _pack_sparse(weight: np.ndarray, plan: LayerPlan, layout: KernelLayout) -> tuple:
    shape, width = plan.conv, plan.rows_at_once
    per_group, channels = shape.k // shape.groups, shape.c // shape.groups
    first_inputs = np.arange(shape.k) // per_group * channels
    starts, rows, offsets, values = [np.zeros(1, int)], [], [], []
    for block in range(layout.k_blocks):
        members = np.array(_block(plan, layout, block))
        for u in weight[:, members]:
            order, steps, offset, value = _pack_rows(u, first_inputs[members], layout, width)
            written = np.full(layout.slices * width, layout.dummy_row)
            written[: len(order)] = order
            starts.append(starts[-1][-1] + np.cumsum(steps))
            rows.append(layout.product.channel_offset(written))
            offsets.append(offset)
            values.append(value)
    return (
        np.concatenate(starts).astype(np.int32),
        np.concatenate(rows).astype(np.int32),
        _never_empty(np.concatenate(offsets), np.int32),
        _never_empty(np.concatenate(values), np.float32),
    )


def _pack_rows(
    u: np.ndarray, first_inputs: np.ndarray, layout: KernelLayout, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one block and coordinate: their order, steps per slice, offsets and values."""
    counts = np.count_nonzero(u, axis=1)
    order = np.argsort(-counts, kind="stable")
    u, counts, first_inputs = u[order], counts[order], first_inputs[order]
    steps = np.zeros(layout.slices, int)
    longest = counts[::width]
    steps[: len(longest)] = longest
    # Padding steps read the row's own group: 0 * NaN of another must not enter.
    idle = np.zeros(layout.slices * width, np.int32)
    idle[: len(order)] = layout.v.channel_offset(first_inputs)
    offset = np.repeat(idle.reshape(-1, width), steps, axis=0)
    value = np.zeros(offset.shape, np.float32)
    row, column = np.nonzero(u)
    slice_starts, row_starts = np.cumsum(steps) - steps, np.cumsum(counts) - counts
    step = slice_starts[row // width] + np.arange(len(row)) - row_starts[row]
    offset[step, row % width] = layout.v.channel_offset(first_inputs[row] + column)
    value[step, row % width] = u[row, column]
    return order, steps, offset.ravel(), value.ravel()


def _never_empty(array: np.ndarray, dtype: type) -> np.ndarray:
    """A buffer of no elements cannot be passed; a layer of zeros gets one that is never read."""
    return (array if len(array) else np.zeros(1)).astype(dtype)


def _unpack_sparse(weight: np.ndarray, packed: PackedWeights, layout: KernelLayout) -> None:
    starts, rows, offsets, values = packed.arrays
    plan, width = packed.plan, packed.plan.rows_at_once
    channels = plan.conv.c // plan.conv.groups
    channel_at = {int(layout.v.channel_offset(c)): c for c in range(plan.conv.c)}
    row_at = {int(layout.product.channel_offset(k)): k for k in range(layout.k_block)}
    for index in range(len(starts) - 1):
        block, rest = divmod(index, layout.v.coordinates * layout.slices)
        for lane in range(width):
            row = row_at.get(int(rows[index * width + lane]))
            if row is None:
                continue
            for p in range(starts[index] * width + lane, starts[index + 1] * width, width):
                if values[p]:
                    column = channel_at[int(offsets[p])] % channels
                    k = block * layout.k_block + row
                    weight[rest // layout.slices, k, column] = values[p]


def _dense_slices(plan: LayerPlan, layout: KernelLayout, block: int) -> Iterator[list[int]]:
    """Output channels of every slice of a block; empty lists complete the block."""
    members, width = _block(plan, layout, block), plan.rows_at_once
    per_group = plan.conv.k // plan.conv.groups
    made, start = 0, members.start
    while start < members.stop:
        end = min(start + width, members.stop, (start // per_group + 1) * per_group)
        yield list(range(start, end))
        made, start = made + 1, end
    yield from ([] for _ in range(layout.slices - made))


def _pack_dense(weight: np.ndarray, plan: LayerPlan, layout: KernelLayout) -> tuple:
    shape, width = plan.conv, plan.rows_at_once
    per_group, channels = shape.k // shape.groups, shape.c // shape.groups
    values = np.zeros(
        (layout.k_blocks, layout.v.coordinates, layout.slices, channels, width), np.float32
    )
    rows = np.full((layout.k_blocks, layout.slices, width), layout.dummy_row)
    inputs = np.zeros((layout.k_blocks, layout.slices), np.int32)
    for block in range(layout.k_blocks):
        for index, members in enumerate(_dense_slices(plan, layout, block)):
            if members:
                count, first = len(members), block * layout.k_block
                rows[block, index, :count] = np.array(members) - first
                inputs[block, index] = members[0] // per_group * channels
                values[block, :, index, :, :count] = weight[:, members].transpose(0, 2, 1)
    rows = layout.product.channel_offset(rows).astype(np.int32)
    return rows.ravel(), inputs.ravel(), values.ravel()


def _unpack_dense(weight: np.ndarray, packed: PackedWeights, layout: KernelLayout) -> None:
    plan, channels = packed.plan, weight.shape[2]
    values = packed.arrays[2].reshape(
        layout.k_blocks, layout.v.coordinates, layout.slices, channels, plan.rows_at_once
    )
    for block in range(layout.k_blocks):
        for index, members in enumerate(_dense_slices(plan, layout, block)):
            part = values[block, :, index, :, : len(members)]
            weight[:, members] = part.transpose(0, 2, 1)
