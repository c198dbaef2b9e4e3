"""Definitions of operators without kernels of their own, written so that their loops vectorise.

Plain TE; :mod:`.general` schedules it. Sums and maxima over contiguous numbers are taken lane by
lane first: float32 addition has an order, which compilers keep, one number at a time otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import te

from .._compat import tir
from . import vector_math

Combine = tuple[Callable[..., Any], Callable[[Any, Any], Any]]
SUM: Combine = (te.sum, lambda a, b: a + b)
MAX: Combine = (te.max, tir.max)


def unary(function: Callable[[Any], Any]) -> Callable[[te.Tensor], te.Tensor]:
    """``function`` of every number of a tensor."""
    return lambda x: te.compute(x.shape, lambda *i: function(x(*i)), name="map")


def silu(x: Any) -> Any:
    """x sigmoid(x)."""
    return x * vector_math.sigmoid(x)


def gelu(x: Any) -> Any:
    """x (1 + erf(x / sqrt(2))) / 2."""
    half, one = tir.const(0.5, "float32"), tir.const(1.0, "float32")
    return half * x * (one + vector_math.erf(x * tir.const(math.sqrt(0.5), "float32")))


def reduce_rows(
    outer: Sequence[int], size: int, read: Callable[..., Any], combine: Combine, lanes: int
) -> te.Tensor:
    """Reduce ``size`` contiguous numbers, ``read(*outer indices, number)``, for every outer index.

    Returns:
        a tensor of shape ``outer``.
    """
    reducer, pair = combine
    whole = size // lanes
    parts = []
    if whole:
        r = te.reduce_axis((0, whole), "step")
        lane = te.reduce_axis((0, lanes), "lane")
        by_lane = te.compute(
            (*outer, lanes),
            lambda *i: reducer(read(*i[:-1], r * lanes + i[-1]), axis=[r]),
            name="by_lane",
        )
        parts.append(
            te.compute(outer, lambda *i: reducer(by_lane(*i, lane), axis=[lane]), name="lanes")
        )
    if size % lanes:
        t = te.reduce_axis((0, size % lanes), "rest")
        parts.append(
            te.compute(
                outer, lambda *i: reducer(read(*i, whole * lanes + t), axis=[t]), name="rest"
            )
        )
    if len(parts) == 1:
        return parts[0]
    first, second = parts
    return te.compute(outer, lambda *i: pair(first(*i), second(*i)), name="reduced")


def softmax(x: te.Tensor, lanes: int, log: bool = False) -> te.Tensor:
    """Softmax over the last axis, or its logarithm."""
    *outer, size = (int(extent) for extent in x.shape)
    largest = reduce_rows(outer, size, x, MAX, lanes)
    powers = te.compute(
        x.shape, lambda *i: vector_math.exp(x(*i) - largest(*i[:-1])), name="powers"
    )
    total = reduce_rows(outer, size, powers, SUM, lanes)
    if not log:
        inverse = te.compute(
            outer, lambda *i: tir.const(1.0, "float32") / total(*i), name="inverse"
        )
        return te.compute(x.shape, lambda *i: powers(*i) * inverse(*i[:-1]), name="softmax")
    shift = te.compute(outer, lambda *i: largest(*i) + te.log(total(*i)), name="shift")
    return te.compute(x.shape, lambda *i: x(*i) - shift(*i[:-1]), name="log_softmax")


def softmax_across(x: te.Tensor, axis: int, log: bool = False) -> te.Tensor:
    """Softmax over an axis that is not the last, or its logarithm: lanes are the last axis."""
    shape = [int(extent) for extent in x.shape]
    axis %= len(shape)
    outer = [extent for i, extent in enumerate(shape) if i != axis]

    def without(i: Sequence[Any]) -> list[Any]:
        return [index for number, index in enumerate(i) if number != axis]

    def at(tensor: te.Tensor, i: Sequence[Any], k: Any) -> Any:
        return tensor(*i[:axis], k, *i[axis:])

    first, second = (te.reduce_axis((0, shape[axis]), name) for name in ("k", "l"))
    largest = te.compute(outer, lambda *i: te.max(at(x, i, first), axis=[first]), name="largest")
    powers = te.compute(
        shape, lambda *i: vector_math.exp(x(*i) - largest(*without(i))), name="powers"
    )
    total = te.compute(outer, lambda *i: te.sum(at(powers, i, second), axis=[second]), name="total")
    if not log:
        one = tir.const(1.0, "float32")
        inverse = te.compute(outer, lambda *i: one / total(*i), name="inverse")
        return te.compute(shape, lambda *i: powers(*i) * inverse(*without(i)), name="softmax")
    shift = te.compute(outer, lambda *i: largest(*i) + te.log(total(*i)), name="shift")
    return te.compute(shape, lambda *i: x(*i) - shift(*without(i)), name="log_softmax")


def layer_norm(
    x: te.Tensor, scale: te.Tensor, shift: te.Tensor, epsilon: float, lanes: int
) -> te.Tensor:
    """Every row of the last axes minus its mean, over its deviation, scaled and shifted.

    ``scale`` and ``shift`` have the shape of those axes.
    """
    shape, axes = [int(extent) for extent in x.shape], len(scale.shape)
    outer = shape[: len(shape) - axes]
    size = math.prod(shape[len(outer) :])

    def at(i: Sequence[Any]) -> Any:
        return x(*i[: len(outer)], *_unravelled(i[len(outer)], shape[len(outer) :]))

    share = tir.const(1.0 / size, "float32")
    total = reduce_rows(outer, size, lambda *i: at(i), SUM, lanes)
    mean = te.compute(outer, lambda *i: total(*i) * share, name="row_mean")

    def square(*i: Any) -> Any:
        difference = at(i) - mean(*i[:-1])
        return difference * difference

    squares = reduce_rows(outer, size, square, SUM, lanes)
    factor = te.compute(
        outer,
        lambda *i: te.rsqrt(squares(*i) * share + tir.const(epsilon, "float32")),
        name="factor",
    )

    def normal(*i: Any) -> Any:
        row, inner = i[: len(outer)], i[len(outer) :]
        return (x(*i) - mean(*row)) * factor(*row) * scale(*inner) + shift(*inner)

    return te.compute(shape, normal, name="layer_norm")


def _unravelled(number: Any, shape: Sequence[int]) -> list[Any]:
    """The indices of element ``number`` of a tensor."""
    indices = []
    for extent in reversed(shape[1:]):
        indices.append(number % extent)
        number = number // extent
    return [number, *reversed(indices)]


def trailing(
    x: te.Tensor, axes: int, combine: Combine, lanes: int, keepdims: bool, scale: float = 1.0
) -> te.Tensor:
    """Sum or maximum over the last ``axes`` axes, times ``scale``."""
    shape = [int(extent) for extent in x.shape]
    outer, inner = shape[: len(shape) - axes], shape[len(shape) - axes :]

    def read(*i: Any) -> Any:
        return x(*i[:-1], *_unravelled(i[-1], inner))

    reduced = reduce_rows(outer, math.prod(inner), read, combine, lanes)
    result = [*outer, *[1] * axes] if keepdims else outer
    factor = tir.const(scale, "float32")
    return te.compute(
        result,
        lambda *i: (
            reduced(*i[: len(outer)]) * factor if scale != 1.0 else reduced(*i[: len(outer)])
        ),
        name="scaled",
    )
