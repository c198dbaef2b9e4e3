"""Resizing in two steps: between rows first, whole rows at a time, then between columns.

Where columns repeat themselves after a few outputs, as they do in enlarging by whole numbers, an
output's inputs are at a distance known from its place in the period: loops become vectors that are
put together by shuffles. Elsewhere inputs and weights of columns come from tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import te

from .._compat import tir
from .resize_axes import ResizeAxis

# Outputs of a period that are written as code of their own.
MOST_PHASES = 8


def resample_tables(rows: ResizeAxis, columns: ResizeAxis) -> list[np.ndarray]:
    """What :func:`resample` takes as constants: int32 [outputs, taps] and float32 of that shape
    for rows, and the same transposed for columns without a period.
    """
    tables = [rows.taken().astype(np.int32), rows.weights]
    if _period(columns) is None:
        tables += [columns.taken().T.astype(np.int32), columns.weights.T]
    return [np.ascontiguousarray(table) for table in tables]


def resample(x: te.Tensor, *tables: te.Tensor, rows: ResizeAxis, columns: ResizeAxis) -> te.Tensor:
    """NCHW maps with rows and columns made as the two axes say.

    Args:
        x: [N, C, rows.size, columns.size].
        tables: those of :func:`resample_tables`.
        rows, columns: the axes.
    """
    if rows.taps == columns.taps == 1:
        return _picked(x, tables, rows, columns)
    if _period(columns) is not None:
        between = _between_rows(x, *tables[:2], rows)
        return between if columns.keeps else _by_phase(between, columns)
    if rows.outputs > rows.size:
        return _between_rows(_by_table(x, *tables[2:], columns), *tables[:2], rows)
    return _by_table(_between_rows(x, *tables[:2], rows), *tables[2:], columns)


def _period(axis: ResizeAxis) -> tuple[int, int] | None:
    """Outputs and inputs of a short period; None where tables are faster, or single numbers are
    outside of the input.
    """
    period = axis.period(MOST_PHASES)
    if axis.taps > 1:
        return period if period is not None and 1 in period else None
    return None if axis.first.min() < 0 or axis.first.max() >= axis.size else period


def _choose(index: Any, values: Sequence[Any]) -> Any:
    """``values[index]``; nothing but that value where the index is known."""
    chosen = values[-1]
    for number in reversed(range(len(values) - 1)):
        chosen = tir.Select(index == number, values[number], chosen)
    return chosen


def _phase_index(axis: ResizeAxis, i: Any, shift: int = 0) -> Any:
    """The first number that output ``i`` of an axis with a period takes, ``shift`` further."""
    outputs, inputs = _period(axis)
    firsts = [int(first) + shift for first in axis.first[:outputs]]
    start = firsts[0] if len(set(firsts)) == 1 else _choose(i % outputs, firsts)
    return i // outputs * inputs + start


def _picked(
    x: te.Tensor, tables: Sequence[te.Tensor], rows: ResizeAxis, columns: ResizeAxis
) -> te.Tensor:
    def value(b: Any, k: Any, y: Any, z: Any) -> Any:
        row = tables[0][y, 0] if _period(rows) is None else _phase_index(rows, y)
        column = tables[2][0, z] if _period(columns) is None else _phase_index(columns, z)
        return x[b, k, row, column]

    return te.compute((*x.shape[:2], rows.outputs, columns.outputs), value, name="picked")


def _between_rows(
    x: te.Tensor, taken: te.Tensor, weights: te.Tensor, axis: ResizeAxis
) -> te.Tensor:
    n, c, _, w = x.shape
    if axis.keeps:
        return x
    tap = te.reduce_axis((0, axis.taps), "tap")
    return te.compute(
        (n, c, axis.outputs, w),
        lambda b, k, y, z: te.sum(x[b, k, taken[y, tap], z] * weights[y, tap], axis=[tap]),
        name="between_rows",
    )


def _by_table(x: te.Tensor, taken: te.Tensor, weights: te.Tensor, axis: ResizeAxis) -> te.Tensor:
    tap = te.reduce_axis((0, axis.taps), "tap")
    return te.compute(
        (*x.shape[:3], axis.outputs),
        lambda b, k, y, z: te.sum(x[b, k, y, taken[tap, z]] * weights[tap, z], axis=[tap]),
        name="between_columns",
    )


def _by_phase(x: te.Tensor, axis: ResizeAxis) -> te.Tensor:
    outputs, _ = _period(axis)
    left = max(0, -int(axis.first.min()))
    right = max(0, int(axis.first.max()) + axis.taps - axis.size)
    padded = _repeated(x, left, right) if left or right else x
    tap = te.reduce_axis((0, axis.taps), "tap")
    weights = [tir.const(float(w), "float32") for w in axis.weights[:outputs].reshape(-1)]

    def value(b: Any, k: Any, y: Any, z: Any) -> Any:
        weight = _choose(z % outputs * axis.taps + tap, weights)
        return te.sum(padded[b, k, y, _phase_index(axis, z, left) + tap] * weight, axis=[tap])

    return te.compute((*x.shape[:3], axis.outputs), value, name="between_columns")


def _repeated(x: te.Tensor, left: int, right: int) -> te.Tensor:
    """Rows with their first and last number repeated before and behind them."""
    n, c, h, w = x.shape

    def value(b: Any, k: Any, y: Any, z: Any) -> Any:
        inner = tir.if_then_else(z < left + w, x[b, k, y, z - left], x[b, k, y, w - 1])
        return tir.if_then_else(z < left, x[b, k, y, 0], inner)

    return te.compute((n, c, h, left + w + right), value, name="repeated")
