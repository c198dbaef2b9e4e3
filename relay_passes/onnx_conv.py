"""ONNX's Conv and ConvTranspose in Relax: every form of padding, one to three dimensions.

TVM's own converters take fewer cases, and some wrongly. Here padding is resolved to numbers first
and everything that does not fit is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax

from ..errors import ImportFailed
from ..geometry import ceil_div
from .ops import static_shape

_DATA = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
_KERNEL = {1: "OIW", 2: "OIHW", 3: "OIDHW"}
_TRANSPOSED_KERNEL = {1: "IOW", 2: "IOHW", 3: "IODHW"}


@dataclass(frozen=True)
class ConvGeometry:
    """Sizes of one convolution, one entry per spatial dimension.

    Attributes:
        size: of the input map.
        kernel, strides, dilations: as usual.
        groups: channel groups.
        before, after: zeros around the input of a Conv; outputs cut off of a ConvTranspose, where
            negative ones add outputs that only the bias reaches.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Inputs that a dilated kernel spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def conv(builder: relax.BlockBuilder, operands: Sequence[Any], attributes: dict) -> relax.Var:
    """A Conv.

    Raises:
        ImportFailed: attributes or operands that do not fit; says which.
        ShapeError: operands that are not float32.
    """
    data, weight = static_shape(operands[0], "data"), static_shape(operands[1], "weights")
    geometry = _conv_geometry(data, weight, attributes)
    if data[1] != weight[1] * geometry.groups or weight[0] % geometry.groups:
        raise ImportFailed(
            f"{data[1]} channels do not fit {weight} weights in {geometry.groups} groups"
        )
    padded = zip(geometry.size, geometry.before, geometry.after, geometry.extent, strict=True)
    if any(size + a + b < extent for size, a, b, extent in padded):
        raise ImportFailed(f"a map {geometry.size} is smaller than the filter {geometry.kernel}")
    rank = len(geometry.kernel)
    call = getattr(relax.op.nn, f"conv{rank}d")(
        operands[0],
        operands[1],
        strides=list(geometry.strides),
        padding=[*geometry.before, *geometry.after],
        dilation=list(geometry.dilations),
        groups=geometry.groups,
        data_layout=_DATA[rank],
        kernel_layout=_KERNEL[rank],
    )
    return builder.emit(call)


def conv_transpose(
    builder: relax.BlockBuilder, operands: Sequence[Any], attributes: dict
) -> relax.Var:
    """A ConvTranspose; raises as :func:`conv` does."""
    data, weight = static_shape(operands[0], "data"), static_shape(operands[1], "weights")
    geometry = _transposed_geometry(data, weight, attributes)
    if data[1] != weight[0] or weight[0] % geometry.groups:
        raise ImportFailed(
            f"{data[1]} channels do not fit {weight} weights in {geometry.groups} groups"
        )
    full = [
        (n - 1) * s + e
        for n, s, e in zip(geometry.size, geometry.strides, geometry.extent, strict=True)
    ]
    sizes = [f - a - b for f, a, b in zip(full, geometry.before, geometry.after, strict=True)]
    if min(sizes) < 1:
        raise ImportFailed(f"its output would have the size {sizes}")
    rank = len(geometry.kernel)
    call = getattr(relax.op.nn, f"conv{rank}d_transpose")(
        operands[0],
        operands[1],
        strides=list(geometry.strides),
        padding=[max(p, 0) for p in (*geometry.before, *geometry.after)],
        dilation=list(geometry.dilations),
        groups=geometry.groups,
        data_layout=_DATA[rank],
        kernel_layout=_TRANSPOSED_KERNEL[rank],
    )
    result = builder.emit(call)
    added = [[max(-p, 0) for p in side] for side in (geometry.before, geometry.after)]
    if any(map(any, added)):
        widths = [0] * 4 + [n for pair in zip(*added, strict=True) for n in pair]
        result = builder.emit(relax.op.nn.pad(result, widths))
    return result


def add_bias(builder: relax.BlockBuilder, result: relax.Var, bias: Any) -> relax.Var:
    """``result`` plus one number per channel.

    Raises:
        ImportFailed: another number of them.
    """
    shape, channels = static_shape(bias, "bias"), static_shape(result, "output")[1]
    if shape != (channels,):
        raise ImportFailed(f"a bias of {channels} channels cannot be {list(shape)}")
    ones = [1] * (len(static_shape(result, "output")) - 2)
    return builder.emit(relax.op.add(result, relax.op.reshape(bias, [1, channels, *ones])))


def _conv_geometry(data: tuple[int, ...], weight: tuple[int, ...], given: dict) -> ConvGeometry:
    common = _common(data, weight, given)
    size, kernel, strides, dilations, groups, mode = common
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        outs = [ceil_div(n, s) for n, s in zip(size, strides, strict=True)]
        totals = [
            max(0, (out - 1) * s + e - n)
            for out, s, e, n in zip(outs, strides, extent, size, strict=True)
        ]
        before, after = _split(totals, more_after=mode == "SAME_UPPER")
    elif mode == "VALID":
        before = after = (0,) * len(size)
    else:
        pads = _numbers(given, "pads", 2 * len(size), 0, 0)
        before, after = pads[: len(size)], pads[len(size) :]
    return ConvGeometry(size, kernel, strides, dilations, groups, before, after)


def _transposed_geometry(
    data: tuple[int, ...], weight: tuple[int, ...], given: dict
) -> ConvGeometry:
    size, kernel, strides, dilations, groups, mode = _common(data, weight, given)
    rank = len(size)
    extra = _numbers(given, "output_padding", rank, 0, 0)
    full = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, s, k, d, e in zip(size, strides, kernel, dilations, extra, strict=True)
    ]
    wanted = None
    if "output_shape" in given:
        # Some exporters write all dimensions, the specification says spatial ones.
        wanted = tuple(given["output_shape"])[-rank:]
        if len(wanted) != rank:
            raise ImportFailed(f"output_shape must be {rank} numbers, got {given['output_shape']}")
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * s for n, s in zip(size, strides, strict=True))
    if wanted is not None:
        totals = [f - w for f, w in zip(full, wanted, strict=True)]
        if mode != "NOTSET" and min(totals) < 0:
            # Runtimes and ONNX's reference put the missing outputs on different sides.
            raise ImportFailed(f"auto_pad {mode} to {wanted} leaves outputs without any input")
        before, after = _split(totals, more_after=mode == "SAME_UPPER")
    elif mode == "VALID":
        before = after = (0,) * rank
    else:
        pads = _numbers(given, "pads", 2 * rank, 0, 0)
        before, after = pads[:rank], pads[rank:]
    after = tuple(a - e for a, e in zip(after, extra, strict=True))
    return ConvGeometry(size, kernel, strides, dilations, groups, before, after)


def _common(data: tuple[int, ...], weight: tuple[int, ...], given: dict) -> tuple:
    """Size, kernel, strides, dilations, groups and the name of the padding rule."""
    rank = len(data) - 2
    if rank not in _DATA or len(weight) != len(data):
        raise ImportFailed(f"needs 1 to 3 spatial dimensions, got data {data}, weights {weight}")
    if min(*data, *weight) < 1:
        raise ImportFailed(f"empty operands: data {data}, weights {weight}")
    kernel = _numbers(given, "kernel_shape", rank, weight[2:], 1)
    if kernel != weight[2:]:
        raise ImportFailed(f"kernel_shape {kernel} does not fit {weight} weights")
    strides = _numbers(given, "strides", rank, 1, 1)
    dilations = _numbers(given, "dilations", rank, 1, 1)
    groups = given.get("group", 1)
    mode = given.get("auto_pad", b"NOTSET").decode("utf-8", "replace")
    if mode not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise ImportFailed(f"auto_pad {mode!r} is unknown")
    if groups < 1:
        raise ImportFailed(f"group must be at least 1, got {groups}")
    return data[2:], kernel, strides, dilations, groups, mode


def _numbers(
    given: dict, name: str, count: int, default: int | tuple[int, ...], least: int
) -> tuple[int, ...]:
    if name not in given:
        return default if isinstance(default, tuple) else (default,) * count
    values = tuple(int(v) for v in given[name])
    if len(values) != count or not all(least <= v < math.inf for v in values):
        raise ImportFailed(f"{name} must be {count} numbers >= {least}, got {values}")
    return values


def _split(totals: Sequence[int], more_after: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Totals in two parts, the larger on one side; a negative total is put at the end."""
    small = tuple(max(t, 0) // 2 for t in totals)
    large = tuple(t - s for t, s in zip(totals, small, strict=True))
    if more_after:
        return small, large
    negative = tuple(min(t, 0) for t in totals)
    return tuple(max(t, 0) for t in large), tuple(map(sum, zip(small, negative, strict=True)))
