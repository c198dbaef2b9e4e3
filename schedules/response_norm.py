"""Local response normalisation: every number over a power of what is near it in other channels.

One pass over the data instead of three. Lanes are pixels; a task is a run of pixels of all
channels, short enough for the channels of a window to stay in L2, where each is read once per
channel of the output. The power takes no root and no division (:mod:`.vector_math`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from . import vector_math
from .wide import wide

# Numbers of the channels of a window in a task; fewer make runs that are too short to be fetched
# ahead.
_NUMBERS = 16384
# Vectors that are computed side by side: each is a chain of a dozen operations.
_AT_ONCE = 4
# A window's channels at the borders have code of their own.
MOST_CHANNELS = 16
# The least number that the power is taken of: no zero, not subnormal.
LEAST = 1e-30


@dataclass(frozen=True)
class ResponseNorm:
    """x / (offset + scale * sum of squares)^(quarters / 4).

    Attributes:
        before, after: channels of the sum besides the number's own.
        scale: of the sum, at least 0; alpha / size in papers (Krizhevsky et al., 2012).
        offset: at least :data:`LEAST`.
        quarters: of the exponent, 1 to 3.
    """

    before: int
    after: int
    scale: float
    offset: float
    quarters: int


def build_response_norm(shape: Sequence[int], norm: ResponseNorm, lanes: int) -> tir.PrimFunc:
    """The kernel.

    Parameters of the PrimFunc: data float32 ``shape``, scale and offset float32 [2], output float32
    ``shape``. An infinite sum makes zeros of finite numbers, as in float32 arithmetic.

    Args:
        shape: images, channels, and at least one dimension more.
        norm: what is computed.
        lanes: float32 lanes of a vector.
    """
    images, channels, pixels = shape[0], shape[1], math.prod(shape[2:])
    lanes *= _AT_ONCE
    while lanes > pixels:
        lanes //= 2
    vectors = -(-pixels // lanes)
    most = max(_NUMBERS // ((norm.before + norm.after + 1) * lanes), 1)
    parts = -(-vectors // most)
    count = -(-vectors // parts)
    sizes = f"n{images}c{channels}x{pixels}_{norm.before + norm.after + 1}"
    with tvm_ir.prim_func(f"response_norm_{sizes}") as builder:
        data = tvm_ir.arg("data", tuple(shape), "float32")
        numbers = tvm_ir.arg("scale_and_offset", (2,), "float32")
        output = tvm_ir.arg("output", tuple(shape), "float32")
        size = math.prod(shape)
        with (
            tvm_ir.flat_view(data, size) as source,
            tvm_ir.flat_view(output, size) as target,
            T.parallel(0, images * parts) as task,
        ):
            base = tvm_ir.bind(wide(task // parts) * (channels * pixels))
            first = tvm_ir.bind(task % parts * count)
            scale, offset = tvm_ir.bind(numbers[0]), tvm_ir.bind(numbers[1])

            def emit(channel: Any, taps: Sequence[int]) -> None:
                row = tvm_ir.bind(base + wide(channel) * pixels)
                with T.serial(0, count) as vector:
                    # The last vector computes some again rather than a rest.
                    start = tir.min((first + vector) * lanes, pixels - lanes)
                    place = tvm_ir.bind(row + wide(start))
                    total, x = _read(source, place, [tap * pixels for tap in taps], lanes)
                    factor = _factor(total, scale, offset, norm.quarters, lanes)
                    T.buffer_store(target, x * factor, [tvm_ir.ramp(place, 1, lanes)])

            _emit_channels(channels, norm, emit)
    return builder.get()


def _emit_channels(channels: int, norm: ResponseNorm, emit: Any) -> None:
    """Call ``emit(channel, taps)`` for all of them; taps are channels relative to it."""
    inner = range(norm.before, channels - norm.after)
    for channel in range(min(norm.before, channels)):
        emit(channel, _taps(channel, channels, norm))
    if inner:
        with T.serial(inner.start, inner.stop) as channel:
            emit(channel, range(-norm.before, norm.after + 1))
    for channel in range(max(inner.stop, norm.before), channels):
        emit(channel, _taps(channel, channels, norm))


def _taps(channel: int, channels: int, norm: ResponseNorm) -> list[int]:
    first, last = max(channel - norm.before, 0), min(channel + norm.after, channels - 1)
    return [other - channel for other in range(first, last + 1)]


def _read(source: Any, place: Any, taps: Sequence[int], lanes: int) -> tuple[Any, Any]:
    """The sum of the squares of a window, and the numbers at ``place`` themselves."""
    numbers = {tap: tvm_ir.bind(source[tvm_ir.ramp(place + tap, 1, lanes)]) for tap in taps}
    return _sum_of_squares([numbers[tap] for tap in taps]), numbers[0]


def _factor(total: Any, scale: Any, offset: Any, quarters: int, lanes: int) -> Any:
    scale, offset = tvm_ir.broadcast(scale, lanes), tvm_ir.broadcast(offset, lanes)
    near = tvm_ir.bind(tvm_ir.multiply_add(total, scale, offset, lanes))
    power = tvm_ir.bind(vector_math.inverse_power(near, quarters, lanes))
    infinite = near == tvm_ir.broadcast(math.inf, lanes)
    return tir.Select(infinite, tvm_ir.broadcast(0.0, lanes), power)


def _sum_of_squares(numbers: Sequence[Any]) -> Any:
    """Half and half, so that no sum waits long for another."""
    if len(numbers) == 1:
        return numbers[0] * numbers[0]
    if len(numbers) == 2:
        return numbers[0] * numbers[0] + numbers[1] * numbers[1]
    half = len(numbers) // 2
    return _sum_of_squares(numbers[:half]) + _sum_of_squares(numbers[half:])
