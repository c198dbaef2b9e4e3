"""Where a row segment lies: decoded from its number, in index expressions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import Panels


@dataclass(frozen=True)
class Segment:
    """One row segment.

    Attributes:
        position: its place in the panel.
        image: image of the batch.
        tile_y: tile row in the image.
        index_in_row: its place in the tile row.
        first, stop: which of its tiles lie in the panel, all where panels do not cut rows.
        start: the number in the panel of its first tile; negative if that lies in front of it.
    """

    position: Any
    image: Any
    tile_y: Any
    index_in_row: Any
    first: Any
    stop: Any
    start: Any


def first_tile(panels: Panels, panel: Any) -> tuple[Any, Any]:
    """The row segment that ``panel`` begins in, and its tile that the panel begins with."""
    if not panels.cuts_rows:
        return panel * panels.rows, 0
    row = tvm_ir.bind(panel * panels.tiles // panels.segment_tiles)
    return row, tvm_ir.bind(panel * panels.tiles - row * panels.segment_tiles)


@contextmanager
def each_segment(panels: Panels, panel: Any) -> Iterator[Segment]:
    """Loop over the row segments of ``panel``; the body is emitted inside."""
    row, tile = first_tile(panels, panel)
    stop = panels.total_rows
    if panels.cuts_rows:
        # Said in tiles, TVM 0.19 and older turn it into another condition.
        last = ((panel + 1) * panels.tiles - 1) // panels.segment_tiles
        stop = tvm_ir.bind(tir.min(stop, last + 1))
    with T.serial(0, panels.rows) as position:
        number = row + position
        if panels.total_rows % panels.rows == 0 and not panels.cuts_rows:
            yield _decode(panels, position, number, tile)
        else:
            with T.If(number < stop), T.Then():
                yield _decode(panels, position, number, tile)


def _decode(panels: Panels, position: Any, number: Any, tile: Any) -> Segment:
    row = number // panels.segments if panels.segments > 1 else number
    index_in_row = tvm_ir.bind(number % panels.segments) if panels.segments > 1 else 0
    image = tvm_ir.bind(row // panels.tiles_y)
    tile_y = tvm_ir.bind(row - image * panels.tiles_y)
    first, stop = 0, panels.segment_tiles
    start = position * panels.segment_tiles
    if panels.cuts_rows:
        start = tvm_ir.bind(start - tile)
        first = tvm_ir.bind(tir.max(-start, 0))
        stop = tvm_ir.bind(tir.min(stop, panels.tiles - start))
    return Segment(position, image, tile_y, index_in_row, first, stop, start)
