"""Between pixels in a row and lanes that are tiles: 4 x 4 transposes inside 128-bit quarters.

Tile ``t`` reads pixels ``m t .. m t + alpha - 1`` of a row; the kernels want, for every pixel of a
tile, a vector over tiles. Four neighbouring pixels of a tile fill one 128-bit register quarter, so
a vector is put together from such quarters (tiles t, t + 4, ...; an insert straight from memory),
and four vectors are transposed by two rounds of in-quarter shuffles, the cheapest there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _compat as tvm_ir
from ..geometry import QUAD


def take_apart(load_quad: Callable[[int], Any], m: int, count: int, lanes: int) -> list[Any]:
    """Vectors over ``lanes`` tiles of the first ``count`` pixels of each tile.

    Args:
        load_quad: gives 4 pixels from an offset on; called once per offset.
        m: pixels from one tile to the next.
        count: pixels per tile.
        lanes: tiles per vector, a multiple of 4.
    """
    quads: dict[int, Any] = {}
    vectors: dict[int, Any] = {}

    def quad(offset: int) -> Any:
        if offset not in quads:
            quads[offset] = tvm_ir.bind(load_quad(offset))
        return quads[offset]

    def vector(first: int) -> Any:
        if first not in vectors:
            parts = [quad(first + m * t) for t in range(0, lanes, QUAD)]
            whole = tvm_ir.shuffle(parts, range(lanes)) if len(parts) > 1 else parts[0]
            vectors[first] = tvm_ir.bind(whole)
        return vectors[first]

    pixels = []
    for pixel in range(0, count, QUAD):
        rows = [vector(pixel + m * t) for t in range(QUAD)]
        pixels += transpose(rows, lanes, wanted=min(QUAD, count - pixel))
    return pixels


def transpose(rows: list[Any], lanes: int, wanted: int = QUAD) -> list[Any]:
    """Transpose four vectors as 4 x 4 blocks inside every 128-bit quarter.

    Args:
        rows: four vectors of ``lanes`` lanes.
        lanes: a multiple of 4.
        wanted: how many of the results are needed, from the first.
    """
    a, b, c, d = rows
    results = []
    for half in range(0, wanted, 2):
        ab = _pick(a, b, lanes, ((half, 0), (half, 1), (half + 1, 0), (half + 1, 1)))
        cd = _pick(c, d, lanes, ((half, 0), (half, 1), (half + 1, 0), (half + 1, 1)))
        results.append(_pick(ab, cd, lanes, ((0, 0), (1, 0), (0, 1), (1, 1))))
        if half + 1 < wanted:
            results.append(_pick(ab, cd, lanes, ((2, 0), (3, 0), (2, 1), (3, 1))))
    return results


def _pick(x: Any, y: Any, lanes: int, pattern: tuple[tuple[int, int], ...]) -> Any:
    """In every quarter, lanes (position, 0 for ``x`` or 1 for ``y``) of ``pattern``."""
    indices = [q + i + lanes * which for q in range(0, lanes, QUAD) for i, which in pattern]
    return tvm_ir.bind(tvm_ir.shuffle([x, y], indices))
