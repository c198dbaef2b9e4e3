"""Spatial weights as the dense direct kernel reads them.

One operand, ``values`` float32: [groups * blocks of output channels][blocks of input channels]
[slices of R = rows_at_once output channels][input channels of the block][r][s][R]: the order in
which the kernel reads them. Output channels that complete a slice are zeros. Depthwise weights stay
as they are, [K][r][s].
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .aligned import zeros
from .config import LayerPlan
from .geometry_depthwise import is_depthwise
from .geometry_direct import DirectLayout, direct_layout
from .packing_rows import check_weights


def pack_direct(weight: np.ndarray, plan: LayerPlan, lanes: int) -> tuple[np.ndarray]:
    """Pack float32 [K, C/groups, r, s] for the kernel that ``plan`` describes.

    Raises:
        WeightsError: another shape or dtype, NaN or infinity.
        ShapeError: a shape that no kernel can take.
    """
    layout, shape = direct_layout(plan, lanes), plan.conv
    check_weights(weight, (shape.k, layout.channels, shape.r, shape.s))
    if is_depthwise(shape):
        return (weight.ravel(),)
    values = zeros((layout.weights_size,), np.float32)
    for members, channels, part in _parts(values, layout):
        part[: len(members)] = weight[members][:, channels]
    return (values,)


def unpack_direct(values: np.ndarray, plan: LayerPlan, lanes: int) -> np.ndarray:
    """The inverse of :func:`pack_direct`: float32 [K, C/groups, r, s]."""
    layout, shape = direct_layout(plan, lanes), plan.conv
    weight = np.zeros((shape.k, layout.channels, shape.r, shape.s), np.float32)
    if is_depthwise(shape):
        return values.reshape(weight.shape)
    for members, channels, part in _parts(values, layout):
        weight[members.start : members.stop, channels] = part[: len(members)]
    return weight


def _parts(values: np.ndarray, layout: DirectLayout) -> Iterator[tuple[range, slice, np.ndarray]]:
    """Output channels, input channels and a view [R, channels, r, s] of every piece."""
    shape, width = layout.shape, layout.rows_at_once
    for block in range(shape.groups * layout.k_blocks):
        group, number = divmod(block, layout.k_blocks)
        first = group * layout.per_group + number * layout.k_block
        end = min(first + layout.k_block, (group + 1) * layout.per_group)
        for channel in range(0, layout.channels, layout.channel_block):
            count = min(layout.channel_block, layout.channels - channel)
            for index in range(layout.slices):
                start = layout.weights_offset(block, channel, count, index)
                part = values[start : start + count * shape.taps * width]
                part = part.reshape(count, shape.r, shape.s, width).transpose(3, 0, 1, 2)
                members = range(
                    min(first + index * width, end), min(first + (index + 1) * width, end)
                )
                yield members, slice(channel, channel + count), part
