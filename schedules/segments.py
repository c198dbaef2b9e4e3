"""Where a row segment lies: decoded from its number, in index expressions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..geometry import Panels


@dataclass(frozen=True)
class Segment:
    """One row segment.

    Attributes:
        position: its place in the panel.
        image: image of the batch.
        tile_y: tile row in the image.
        index_in_row: its place in the tile row.
    """

    position: Any
    image: Any
    tile_y: Any
    index_in_row: Any


@contextmanager
def each_segment(panels: Panels, panel: Any) -> Iterator[Segment]:
    """Loop over the row segments of ``panel``; the body is emitted inside."""
    with T.serial(0, panels.rows) as position:
        number = panel * panels.rows + position
        if panels.total_rows % panels.rows == 0:
            yield _decode(panels, position, number)
        else:
            with T.If(number < panels.total_rows), T.Then():
                yield _decode(panels, position, number)


def _decode(panels: Panels, position: Any, number: Any) -> Segment:
    row = number // panels.segments if panels.segments > 1 else number
    index_in_row = tvm_ir.bind(number % panels.segments) if panels.segments > 1 else 0
    image = tvm_ir.bind(row // panels.tiles_y)
    return Segment(position, image, tvm_ir.bind(row - image * panels.tiles_y), index_in_row)
