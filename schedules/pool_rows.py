"""Pooling with small windows, vectors of outputs at a time, straight from the map.

Where a window ends is known when the kernel is built. So a vector of outputs is, per tap, a vector
of the map or two, in an order that is a constant, combined with what lies beyond the map; rows of
a window are combined before the order is changed. There is no padded copy and no sum in memory,
and the code has a piece of its own for every vector of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from .. import _compat as tvm_ir
from .._compat import T, tir
from .loops import MIN_PARALLEL
from .pooling import Pool
from .wide import wide

# Windows and strides that there is a kernel for, and pieces of code that a row may have.
MOST_TAPS, MOST_STRIDE, MOST_PIECES = 5, 2, 64
# Fewer outputs than this in a row are better left to loops over whole maps.
_FEWEST = 4


def fits(pool: Pool, width: int, lanes: int) -> bool:
    """Whether there is a kernel for maps of ``width`` columns."""
    lanes = _lanes(pool, width, lanes)
    return (
        max(pool.window) <= MOST_TAPS
        and pool.stride[1] <= MOST_STRIDE
        and pool.dilation == (1, 1)
        and lanes >= _FEWEST
        and -(-pool.output[1] // lanes) <= MOST_PIECES
    )


def pool_table(kind: str, pool: Pool, size: tuple[int, int]) -> np.ndarray:
    """What the kernel takes as a constant, float32: one over the columns that each mean counts, or
    what no maximum is below.
    """
    if kind == "max":
        return np.array([-np.inf], np.float32)
    counts = [_counted(pool, 1, z, size[1]) for z in range(pool.output[1])]
    return (1 / np.array(counts)).astype(np.float32)


def build_pool(shape: Sequence[int], kind: str, pool: Pool, lanes: int) -> tir.PrimFunc:
    """The kernel.

    Parameters of the PrimFunc: data float32 ``shape``, the table of :func:`pool_table`, output
    float32 [images, channels, *pool.output]. The maximum of nothing is -infinity, its mean 0.

    Args:
        shape: images, channels, rows, columns.
        kind: "max" or "mean".
        pool: a window that :func:`fits`.
        lanes: float32 lanes of a vector.
    """
    images, channels, h, w = shape
    (oh, ow), lanes = pool.output, _lanes(pool, w, lanes)
    table_size = 1 if kind == "max" else ow
    window = f"{pool.window[0]}x{pool.window[1]}_s{pool.stride[0]}x{pool.stride[1]}"
    with tvm_ir.prim_func(f"{kind}_pool_{window}_n{images}c{channels}h{h}w{w}") as builder:
        data = tvm_ir.arg("data", tuple(shape), "float32")
        table = tvm_ir.arg("table", (table_size,), "float32")
        output = tvm_ir.arg("output", (images, channels, oh, ow), "float32")
        planes = images * channels
        every = T.parallel if planes * oh * ow >= MIN_PARALLEL else T.serial
        with (
            tvm_ir.flat_view(data, planes * h * w) as source,
            tvm_ir.flat_view(output, planes * oh * ow) as target,
            every(0, planes) as plane,
        ):
            base = tvm_ir.bind(wide(plane) * (h * w))
            to = tvm_ir.bind(wide(plane) * (oh * ow))
            row_of = PoolRow(kind, pool, w, lanes, source, table)
            for first, last, taps in _runs(pool, h):
                with T.serial(first, last) as y:
                    top = y * pool.stride[0] - pool.padding[0]
                    starts = [tvm_ir.bind(base + wide(top + tap) * w) for tap in taps]
                    place = tvm_ir.bind(to + wide(y) * ow)
                    for begin, value in row_of.pieces(starts, _counted(pool, 0, first, h)):
                        T.buffer_store(target, value, [tvm_ir.ramp(place + begin, 1, lanes)])
    return builder.get()


class PoolRow:
    """What the outputs of a row are, from rows of the map.

    Args:
        kind, pool, lanes: as for :func:`build_pool`; vectors are shorter where rows are.
        width: columns of the map.
        source: what index vectors of numbers of the map find them in.
        table: as :func:`pool_table` makes it.
    """

    def __init__(
        self, kind: str, pool: Pool, width: int, lanes: int, source: Any, table: Any
    ) -> None:
        self.kind, self.pool, self.width = kind, pool, width
        self.lanes = lanes = _lanes(pool, width, lanes)
        self.source, self.table = source, table
        lowest = tvm_ir.bind(table[0]) if kind == "max" else 0.0
        self.beyond = tvm_ir.bind(tvm_ir.broadcast(lowest, lanes))
        self.combine: Callable[[Any, Any], Any] = tir.max if kind == "max" else _add

    def pieces(self, starts: Sequence[Any], counted: int) -> Iterator[tuple[int, Any]]:
        """The first output of each vector, and the vector.

        Args:
            starts: where the rows of the window begin; none: it is wholly outside.
            counted: rows that a mean counts.
        """
        ow, lanes = self.pool.output[1], self.lanes
        for start in range(0, ow, lanes):
            begin = min(start, ow - lanes)  # some are computed again rather than a rest
            value = None
            for tap in range(self.pool.window[1]):
                piece = self._tap(starts, begin, tap)
                if piece is not None:
                    value = piece if value is None else self.combine(value, piece)
            value = self.beyond if value is None else value
            if self.kind == "mean":
                share = self.table[tvm_ir.ramp(begin, 1, lanes)]
                value = value * (share * tvm_ir.broadcast(1 / counted, lanes))
            yield begin, tvm_ir.bind(value)

    def _tap(self, starts: Sequence[Any], begin: int, tap: int) -> Any:
        """What outputs from ``begin`` on take at ``tap``, of all rows; None for nothing."""
        lanes, stride = self.lanes, self.pool.stride[1]
        columns = (begin + np.arange(lanes)) * stride + tap - self.pool.padding[1]
        inside = (columns >= 0) & (columns < self.width)
        if not starts or not inside.any():
            return None
        last = self.width - lanes
        firsts = [min(int(columns[inside].min()), last)]
        if columns[inside].max() >= firsts[0] + lanes:
            firsts.append(min(firsts[0] + lanes, last))
        loaded = [self._column(starts, first) for first in firsts]
        if inside.all() and stride == 1:
            return loaded[0]
        places = columns - firsts[0]
        if len(firsts) == 2:
            places = np.where(places < lanes, places, columns - firsts[1] + lanes)
        sources = loaded if inside.all() else [*loaded, self.beyond]
        places = np.where(inside, places, len(loaded) * lanes)
        return tvm_ir.shuffle(sources, places)

    def _column(self, starts: Sequence[Any], first: int) -> Any:
        """Columns from ``first`` on, all rows combined."""
        value = None
        for start in starts:
            row = self.source[tvm_ir.ramp(start + first, 1, self.lanes)]
            value = row if value is None else self.combine(value, row)
        return tvm_ir.bind(value)


def _add(a: Any, b: Any) -> Any:
    return a + b


def _lanes(pool: Pool, width: int, lanes: int) -> int:
    while lanes > min(width, pool.output[1]):
        lanes //= 2
    return lanes


def _runs(pool: Pool, rows: int) -> list[tuple[int, int, list[int]]]:
    """Output rows, from one to before another, whose windows have the same rows inside the map."""

    def taps(y: int) -> tuple[list[int], int]:
        top = y * pool.stride[0] - pool.padding[0]
        inside = [tap for tap in range(pool.window[0]) if 0 <= top + tap < rows]
        return inside, _counted(pool, 0, y, rows)

    runs = []
    for (inside, _), group in groupby(range(pool.output[0]), taps):
        members = list(group)
        runs.append((members[0], members[-1] + 1, inside))
    return runs


def _counted(pool: Pool, axis: int, place: int, size: int) -> int:
    """Rows or columns of a window that a mean counts."""
    first = place * pool.stride[axis] - pool.padding[axis]
    last = first + pool.window[axis]
    if pool.count_padding:
        return max(min(last, size + pool.padding[axis + 2]) - first, 1)
    return max(min(last, size) - max(first, 0), 1)
