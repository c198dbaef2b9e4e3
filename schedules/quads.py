"""Shuffles inside 128-bit quarters between pixels of a row and lanes that are tiles.

Tile ``t`` reads pixels ``m t .. m t + alpha - 1`` of a row and writes ``m`` pixels; the kernels
want, for every pixel of a tile, a vector over tiles. Which tile sits in which lane is free as long
as both transforms agree. For m = 2 and 4 the order below makes a whole vector of pixels fall apart
into lanes, and the lanes back into whole vectors of pixels, by the cheapest shuffles there are.
Otherwise quarters of four pixels are put together (an insert straight from memory).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import _compat as tvm_ir
from ..geometry import QUAD

Load = Callable[[int, int, int], Any]
PAIR = 2
# Patterns for _pick, named after the instructions.
_LOW = ((0, 0), (0, 1), (1, 0), (1, 1))
_HIGH = ((2, 0), (2, 1), (3, 0), (3, 1))
_LOW_HALVES = ((0, 0), (1, 0), (0, 1), (1, 1))
_HIGH_HALVES = ((2, 0), (3, 0), (2, 1), (3, 1))
_LOW_AND_HIGH = ((0, 0), (1, 0), (2, 1), (3, 1))
_EVEN = ((0, 0), (2, 0), (0, 1), (2, 1))
_ODD = ((1, 0), (3, 0), (1, 1), (3, 1))


def lane_order(m: int, lanes: int) -> list[int]:
    """The tile of every lane, counted from the first tile of the vector."""
    quarters = range(lanes // QUAD)
    if m == PAIR:
        return [q * lanes // 2 + 2 * h + e for h in quarters for q in range(2) for e in range(2)]
    if m == QUAD:
        return [q * lanes // 4 + h for h in quarters for q in range(QUAD)]
    return list(range(lanes))


def take_apart(load: Load, m: int, count: int, lanes: int, run: int) -> list[Any]:
    """Vectors over ``lanes`` tiles, in :func:`lane_order`, of the first ``count`` pixels of a tile.

    Args:
        load: ``load(tile, pixel, width)`` gives ``width`` pixels of the row, from ``pixel`` of
            ``tile`` on.
        m: pixels from one tile to the next.
        count: pixels per tile.
        lanes: tiles per vector, a power of two and at least 4.
        run: tiles that lie beside each other in memory: a power of two, and a run starts at every
            multiple of it. Loads never reach into another run but for the pixels of its last tile.
    """
    if m == PAIR and run % PAIR == 0:
        return _take_pairs(load, count, lanes, min(run, lanes // 2))
    order = lane_order(m, lanes)
    together = min(run, lanes // QUAD) if m == QUAD else 1
    pixels = []
    for pixel in range(0, count, QUAD):
        rows = []
        for row in range(QUAD):
            tiles = order[row::QUAD][::together]
            rows.append(_join([load(t, pixel, QUAD * together) for t in tiles], lanes))
        pixels += transpose(rows, lanes, wanted=min(QUAD, count - pixel))
    return pixels


def weave(columns: Sequence[Any], lanes: int) -> list[Any]:
    """The pixels of a row in vectors of ``lanes``, in the order of tiles.

    Args:
        columns: for each of the ``m`` pixels of a tile, a vector over tiles in lane order.
        lanes: a power of two, at least 4.
    """
    m = len(columns)
    if m == 1:
        return list(columns)
    if m == PAIR:
        return [_pick(*columns, lanes, _LOW), _pick(*columns, lanes, _HIGH)]
    if m == QUAD:
        return transpose(columns, lanes)
    if m == PAIR + QUAD:
        return _weave_six(columns, lanes)
    return weave_in_order(columns, range(lanes), lanes)


def weave_in_order(columns: Sequence[Any], order: Sequence[int], lanes: int) -> list[Any]:
    """As :func:`weave`, whatever the number of pixels and the order of tiles in lanes.

    Args:
        columns: for each of the pixels of a tile, a vector over tiles.
        order: the tile of every lane.
        lanes: lanes of the vectors.
    """
    lane_of = {tile: lane for lane, tile in enumerate(order)}
    picked = [j * lanes + lane_of[t] for t in range(lanes) for j in range(len(columns))]
    return [
        tvm_ir.bind(tvm_ir.shuffle(columns, picked[start : start + lanes]))
        for start in range(0, len(picked), lanes)
    ]


def transpose(rows: Sequence[Any], lanes: int, wanted: int = QUAD) -> list[Any]:
    """Transpose four vectors as 4 x 4 blocks inside every 128-bit quarter.

    Args:
        rows: four vectors of ``lanes`` lanes.
        lanes: a multiple of 4.
        wanted: how many of the results are needed, from the first.
    """
    a, b, c, d = rows
    results = []
    for half, pattern in ((0, _LOW), (2, _HIGH)):
        if half < wanted:
            ab, cd = _pick(a, b, lanes, pattern), _pick(c, d, lanes, pattern)
            results.append(_pick(ab, cd, lanes, _LOW_HALVES))
        if half + 1 < wanted:
            results.append(_pick(ab, cd, lanes, _HIGH_HALVES))
    return results


def _take_pairs(load: Load, count: int, lanes: int, together: int) -> list[Any]:
    """m = 2: two vectors of pixels hold the even and the odd pixels of all tiles."""
    pixels = []
    for pixel in range(0, count, PAIR):
        a, b = (
            _join(
                [
                    load(tile, pixel, PAIR * together)
                    for tile in range(first, first + lanes // 2, together)
                ],
                lanes,
            )
            for first in (0, lanes // 2)
        )
        pixels.append(_pick(a, b, lanes, _EVEN))
        if pixel + 1 < count:
            pixels.append(_pick(a, b, lanes, _ODD))
    return pixels


def _weave_six(columns: Sequence[Any], lanes: int) -> list[Any]:
    """m = 6: quarters of pixels 0-3, 4-5 and 0-1 of the next tile, 2-5, then moved into place."""
    quarters = []
    pairs = [
        [_pick(columns[j], columns[j + 1], lanes, pattern) for j in (0, 2, 4)]
        for pattern in (_LOW, _HIGH)
    ]
    for a, b, c in pairs:
        quarters.append(_pick(a, b, lanes, _LOW_HALVES))
        quarters.append(_pick(c, a, lanes, _LOW_AND_HIGH))
        quarters.append(_pick(b, c, lanes, _HIGH_HALVES))
    woven = []
    for first in range(0, lanes // QUAD * len(quarters), lanes // QUAD):
        numbers = range(first, first + lanes // QUAD)
        sources = sorted({n % len(quarters) for n in numbers})
        indices = []
        for n in numbers:
            start = sources.index(n % len(quarters)) * lanes + n // len(quarters) * QUAD
            indices += range(start, start + QUAD)
        woven.append(tvm_ir.bind(tvm_ir.shuffle([quarters[s] for s in sources], indices)))
    return woven


def _join(parts: list[Any], lanes: int) -> Any:
    whole = tvm_ir.shuffle(parts, range(lanes)) if len(parts) > 1 else parts[0]
    return tvm_ir.bind(whole)


def _pick(x: Any, y: Any, lanes: int, pattern: tuple[tuple[int, int], ...]) -> Any:
    """In every quarter, lanes (position, 0 for ``x`` or 1 for ``y``) of ``pattern``."""
    indices = [q + i + lanes * which for q in range(0, lanes, QUAD) for i, which in pattern]
    return tvm_ir.bind(tvm_ir.shuffle([x, y], indices))
