"""Pooling in two steps: windows along columns first, whole rows at a time, then along rows.

A 3x3 window so costs 3 + 3 operations instead of 9, the first 3 of them on contiguous numbers, and
there is no padded copy: the border is a condition on the row, outside of the inner loop, and two
short runs of constants at the ends of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import te

from .._compat import tir


@dataclass(frozen=True)
class Pool:
    """A 2-D pooling window, NCHW.

    Attributes:
        window, stride, dilation: (rows, columns).
        padding: (top, left, bottom, right).
        output: (rows, columns) of the output.
        count_padding: whether an average counts the padding.
    """

    window: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    output: tuple[int, int]
    count_padding: bool = False


def max_pool(x: te.Tensor, pool: Pool) -> te.Tensor:
    """The largest number of every window; padding never is."""
    return _windows(x, pool, te.max, tir.min_value("float32"))


def average_pool(x: te.Tensor, pool: Pool) -> te.Tensor:
    """The mean of every window; 0 for one that is wholly outside."""
    sums = _windows(x, pool, te.sum, tir.const(0.0, "float32"))
    (h, w), one = (int(x.shape[2]), int(x.shape[3])), tir.const(1.0, "float32")

    def counted(i: Any, axis: int, size: int) -> Any:
        first = i * pool.stride[axis] - pool.padding[axis]
        last = first + pool.window[axis]
        if pool.count_padding:
            return tir.max(tir.min(last, size + pool.padding[axis + 2]) - first, 1)
        return tir.max(tir.min(last, size) - tir.max(first, 0), 1)

    whole = _is_whole(pool, (h, w))

    def mean(n: Any, c: Any, y: Any, z: Any) -> Any:
        if whole:
            size = pool.window[0] * pool.window[1]
            return sums[n, c, y, z] * tir.const(1.0 / size, "float32")
        count = counted(y, 0, h) * counted(z, 1, w)
        return sums[n, c, y, z] * (one / tir.Cast("float32", count))

    return te.compute(sums.shape, mean, name="mean")


def _is_whole(pool: Pool, size: tuple[int, int]) -> bool:
    """Whether every window counts all of its numbers."""
    for axis in range(2):
        end = (pool.output[axis] - 1) * pool.stride[axis] + pool.window[axis]
        start = 0 if pool.count_padding else pool.padding[axis]
        past = pool.padding[axis + 2] if pool.count_padding else 0
        if start or end > size[axis] + pool.padding[axis] + past:
            return False
    return True


def _windows(x: te.Tensor, pool: Pool, reducer: Any, neutral: Any) -> te.Tensor:
    n, c, h, w = (int(extent) for extent in x.shape)
    (top, left, _, _), (oh, ow) = pool.padding, pool.output
    needed = (ow - 1) * pool.stride[1] + (pool.window[1] - 1) * pool.dilation[1] + 1
    right = max(needed - left - w, 0)
    ky = te.reduce_axis((0, pool.window[0]), "ky")
    kx = te.reduce_axis((0, pool.window[1]), "kx")

    def column(b: Any, k: Any, y: Any, z: Any) -> Any:
        row = y * pool.stride[0] + ky * pool.dilation[0] - top
        last = (oh - 1) * pool.stride[0] + (pool.window[0] - 1) * pool.dilation[0] - top
        value = x[b, k, row, z]
        if top or last >= h:
            value = tir.if_then_else(tir.all(row >= 0, row < h), value, neutral)
        return reducer(value, axis=[ky])

    columns = te.compute((n, c, oh, w), column, name="columns")
    if left or right:
        columns = _padded(columns, left, right, neutral)
    return te.compute(
        (n, c, oh, ow),
        lambda b, k, y, z: reducer(
            columns[b, k, y, z * pool.stride[1] + kx * pool.dilation[1]], axis=[kx]
        ),
        name="pool",
    )


def _padded(rows: te.Tensor, left: int, right: int, neutral: Any) -> te.Tensor:
    n, c, h, w = (int(extent) for extent in rows.shape)

    def value(b: Any, k: Any, y: Any, z: Any) -> Any:
        inside = tir.all(z >= left, z < left + w)
        return tir.if_then_else(inside, rows[b, k, y, z - left], neutral)

    return te.compute((n, c, h, left + w + right), value, name="pad")
