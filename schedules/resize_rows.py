"""Maps resized row by row: an output row is summed from rows of the input, then its columns are
put together by shuffles.

Which columns an output takes is known when the kernel is built. So a vector of outputs is, per tap,
one vector of the summed row, or a few that follow each other, in an order that is a constant, times
a vector of weights; no number is loaded alone. The code has a piece of its own for every vector of
a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _compat as tvm_ir
from .._compat import T, tir
from .resize_axes import Taps
from .tails import emit_tail
from .wide import wide

# Vectors that a shuffle may take its lanes from, and pieces of code that a row may have.
MOST_SOURCES = 4
MOST_PIECES = 1024
# Rows of a task, whose sums stay in L1 until all are there: what was just written in parts cannot
# be read as a whole for some cycles.
_ROWS, _SUMS = 8, 2048


def fits(columns: Taps, lanes: int) -> bool:
    """Whether columns can be put together by shuffles: near each other, and not too many."""
    if lanes == 1 or len(_starts(columns, lanes)) * columns.taps > MOST_PIECES:
        return False
    taken = np.stack([taken for _, taken in _pieces(columns, lanes)])
    return int(np.ptp(taken, axis=1).max()) < MOST_SOURCES * lanes


def resize_tables(rows: Taps, columns: Taps, lanes: int) -> list[np.ndarray]:
    """What the kernel takes as constants, each of one dimension: rows that are taken (int32) and
    their weights, by output, and weights of columns, by vector and tap.
    """
    by_vector = columns.weights[_numbers(columns, lanes)].swapaxes(1, 2)
    tables = (rows.taken.astype(np.int32), rows.weights, by_vector)
    return [np.ascontiguousarray(table.reshape(-1)) for table in tables]


def build_resize(outer: Sequence[int], rows: Taps, columns: Taps, lanes: int) -> tir.PrimFunc:
    """The kernel.

    Parameters of the PrimFunc: data float32 [*outer, rows.size, columns.size], the three tables of
    :func:`resize_tables`, output float32 [*outer, rows.outputs, columns.outputs].

    Args:
        outer: two dimensions, images and channels.
        rows, columns: the axes; ``fits`` says which columns there is a kernel for.
        lanes: float32 lanes of a vector, at least 2.
    """
    images, channels = outer
    shape = _Shape(rows, columns, lanes)
    weights_size = len(_starts(columns, lanes)) * lanes * columns.taps
    sizes = f"c{channels}h{rows.size}w{columns.size}_to_{rows.outputs}x{columns.outputs}"
    with tvm_ir.prim_func(f"resize_rows_n{images}{sizes}") as builder:
        data = tvm_ir.arg("data", (*outer, rows.size, columns.size), "float32")
        taken = tvm_ir.arg("taken", (rows.outputs * rows.taps,), "int32")
        weights = tvm_ir.arg("row_weights", (rows.outputs * rows.taps,), "float32")
        factors = tvm_ir.arg("column_weights", (weights_size,), "float32")
        output = tvm_ir.arg("output", (*outer, rows.outputs, columns.outputs), "float32")
        stride = columns.size + MOST_SOURCES * lanes
        most = max(1, min(_ROWS, _SUMS // stride, rows.outputs))
        planes, parts = images * channels, -(-rows.outputs // most)
        with (
            tvm_ir.flat_view(data, planes * rows.size * columns.size) as source,
            tvm_ir.flat_view(output, planes * rows.outputs * columns.outputs) as target,
            T.parallel(0, planes * parts) as task,
            tvm_ir.scratch((most * stride,)) as sums,
        ):
            plane, first = tvm_ir.bind(task // parts), tvm_ir.bind(task % parts * most)
            count = tir.min(most, rows.outputs - first)
            with T.serial(0, count) as index:
                base = tvm_ir.bind(wide(plane) * (rows.size * columns.size))
                y, to, tables = tvm_ir.bind(first + index), index * stride, (taken, weights)
                _emit_sum(source, base, y, tables, sums, to, shape)
            with T.serial(0, count) as index:
                place = tvm_ir.bind((wide(plane) * rows.outputs + first + index) * columns.outputs)
                _emit_columns(sums, index * stride, factors, target, place, shape)
    return builder.get()


@dataclass(frozen=True)
class _Shape:
    rows: Taps
    columns: Taps
    lanes: int


def _emit_sum(
    source: Any, base: Any, y: Any, tables: tuple[Any, Any], sums: Any, to: Any, shape: _Shape
) -> None:
    """The sum of the rows that output row ``y`` takes, to ``sums`` from ``to`` on."""
    (taken, weights), width, taps = tables, shape.columns.size, shape.rows.taps
    starts, factors = [], []
    for tap in range(taps):
        starts.append(tvm_ir.bind(base + wide(taken[y * taps + tap]) * width))
        factors.append(tvm_ir.bind(weights[y * taps + tap]))

    def emit(x: Any, lanes: int) -> None:
        total = None
        for start, factor in zip(starts, factors, strict=True):
            value = source[tvm_ir.ramp(start + x, 1, lanes)] * tvm_ir.broadcast(factor, lanes)
            total = value if total is None else total + value
        T.buffer_store(sums, total, [tvm_ir.ramp(to + x, 1, lanes)])

    whole, rest = divmod(width, shape.lanes)
    if whole:
        with T.serial(0, whole) as vector:
            emit(vector * shape.lanes, shape.lanes)
    if whole and rest:
        emit(width - shape.lanes, shape.lanes)  # some of its numbers are computed twice
    elif rest:
        with T.serial(0, rest) as x:
            emit(x, 1)


def _emit_columns(
    sums: Any, row: Any, factors: Any, target: Any, place: Any, shape: _Shape
) -> None:
    """All vectors of an output row, from the summed row that begins at ``row``."""
    columns, lanes = shape.columns, shape.lanes
    for vector, (begin, taken) in enumerate(_pieces(columns, lanes)):
        first = int(taken.min())
        near = taken.max() - first < lanes  # one vector has what all taps take
        total = None
        for tap in range(columns.taps):
            start = first if near else int(taken[:, tap].min())
            at = (vector * columns.taps + tap) * lanes
            weights = factors[tvm_ir.ramp(at, 1, lanes)]
            value = _shuffled(sums, row + start, taken[:, tap] - start, lanes) * weights
            total = tvm_ir.bind(value if total is None else total + value)

        def store(part: Any, lane: int, width: int, begin: int = begin) -> None:
            T.buffer_store(target, part, [tvm_ir.ramp(place + begin + lane, 1, width)])

        emit_tail(total, lanes, min(lanes, columns.outputs), store)


def _shuffled(sums: Any, start: Any, places: np.ndarray, lanes: int) -> Any:
    """The numbers that are ``places`` behind ``start``."""
    count = int(places.max()) // lanes + 1
    sources = [sums[tvm_ir.ramp(start + i * lanes, 1, lanes)] for i in range(count)]
    if np.array_equal(places, np.arange(lanes)):
        return sources[0]
    return tvm_ir.shuffle(sources, places)


def _pieces(columns: Taps, lanes: int) -> list[tuple[int, np.ndarray]]:
    """The first output of each vector, and what its lanes take, [lanes, taps]."""
    return list(zip(_starts(columns, lanes), columns.taken[_numbers(columns, lanes)], strict=True))


def _starts(columns: Taps, lanes: int) -> list[int]:
    """The first output of each vector; the last one computes some again rather than a rest."""
    return [
        max(0, min(start, columns.outputs - lanes)) for start in range(0, columns.outputs, lanes)
    ]


def _numbers(columns: Taps, lanes: int) -> np.ndarray:
    """The outputs of each vector, [vectors, lanes]; in rows shorter than one, the last again."""
    numbers = np.array(_starts(columns, lanes))[:, None] + np.arange(lanes)
    return np.minimum(numbers, columns.outputs - 1)
