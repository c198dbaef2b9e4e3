"""The vertical half of the input transform: rows of the map times B^T, staged for a whole panel.

Rows of the map are contiguous, so this is arithmetic on whole vectors of pixels, wherever tiles
begin. Zero padding is never copied: rows outside of the map are multiplied by 0, and beside the
map the staging area holds zeros that are never written. Where the map's width is no multiple of a
vector, its last vector overlaps the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import ConvShape
from ..cook_toom import CookToom
from ..geometry import QUAD, Panels, round_up
from .linear_transform import apply_matrix
from .segments import Segment


@dataclass(frozen=True)
class Staging:
    """Where the vertically transformed rows of a panel's segments lie: [alpha][segment][pixel].

    Every segment begins with a margin, which takes what overlapping vectors write in front of it.
    """

    panels: Panels

    @property
    def pitch(self) -> int:
        """Floats from one row segment to the next."""
        panels = self.panels
        reach = panels.segment_tiles * panels.m + round_up(panels.alpha, QUAD) - panels.m
        return panels.lanes + round_up(reach, panels.lanes)

    @property
    def width(self) -> int:
        """Floats of one of the ``alpha`` rows: as far as the last tile of the last vector reads."""
        panels = self.panels
        last = panels.vectors * panels.lanes - 1
        if panels.cuts_rows:
            last = panels.rows * panels.segment_tiles - 1
        return round_up(self.tile(last) + round_up(panels.alpha, QUAD), panels.lanes)

    @property
    def run(self) -> int:
        """Tiles of a vector that lie ``m`` pixels apart, from every multiple of it on."""
        panels = self.panels
        return gcd(panels.segment_tiles, panels.lanes) if panels.rows > 1 else panels.lanes

    @property
    def runs(self) -> int:
        """Runs in all vectors of the panel."""
        return self.panels.vectors * self.panels.lanes // self.run

    def tile(self, number: Any) -> Any:
        """Where tile ``number`` of the panel begins."""
        panels = self.panels
        start = panels.lanes + number * panels.m
        if panels.rows > 1:
            gap = self.pitch - panels.segment_tiles * panels.m
            start = start + number // panels.segment_tiles * gap
        return start


def clear(staged: Any, staging: Staging) -> None:
    """Emit zeros over the staging area: they stay wherever no row of the map is written."""
    lanes = staging.panels.lanes
    with T.serial(0, staging.panels.alpha) as i, T.serial(0, staging.width // lanes) as chunk:
        zero = tvm_ir.broadcast(0.0, lanes)
        T.buffer_store(staged, zero, [i, tvm_ir.ramp(chunk * lanes, 1, lanes)])


def emit_vertical(
    data: Any,
    staged: Any,
    shape: ConvShape,
    staging: Staging,
    algorithm: CookToom,
    segment: Segment,
    channel: Any,
) -> None:
    """Emit B^T from the left for one channel of one row segment.

    Args:
        data: buffer [N, C, H, W].
        staged: buffer laid out by ``staging``.
        shape: the convolution.
        staging: layout of ``staged``.
        algorithm: F(m, r).
        segment: where the row segment lies in the image and in the panel.
        channel: the input channel.
    """
    top = tvm_ir.bind(segment.tile_y * algorithm.m - shape.padding[0])
    rows = [top + i for i in range(algorithm.alpha)]
    source = _Source(data, shape, segment.image, channel)
    with T.If(tir.all(top >= 0, top + algorithm.alpha <= shape.h)):
        with T.Then():
            _emit_chunks(source.rows(rows), staged, shape, staging, algorithm, segment)
        with T.Else():
            _emit_chunks(source.masked(rows), staged, shape, staging, algorithm, segment)


@dataclass(frozen=True)
class _Source:
    """One channel of the map; gives functions that load ``lanes`` pixels of row ``i`` at ``x``."""

    data: Any
    shape: ConvShape
    image: Any
    channel: Any

    def rows(self, rows: Sequence[Any]) -> Any:
        def load(i: int, x: Any, lanes: int) -> Any:
            return self.data[self.image, self.channel, rows[i], tvm_ir.ramp(x, 1, lanes)]

        return load

    def masked(self, rows: Sequence[Any]) -> Any:
        """Rows outside of the map are read inside and multiplied by 0: cheaper than a branch per
        row, and a tile that touches the border reads the border row anyway.
        """
        height = self.shape.h
        one, zero = tir.const(1.0, "float32"), tir.const(0.0, "float32")
        masks = [tvm_ir.bind(tir.Select(tir.all(y >= 0, y < height), one, zero)) for y in rows]
        last = tir.const(height - 1, "int32")
        inner = self.rows([tvm_ir.bind(tir.max(tir.min(y, last), 0)) for y in rows])

        def load(i: int, x: Any, lanes: int) -> Any:
            return inner(i, x, lanes) * tvm_ir.broadcast(masks[i], lanes)

        return load


def _emit_chunks(
    load: Any,
    staged: Any,
    shape: ConvShape,
    staging: Staging,
    algorithm: CookToom,
    segment: Segment,
) -> None:
    """Vectors at aligned places of the staging area, and one each at the ends of the map's row."""
    panels = staging.panels
    lanes = panels.lanes
    while lanes > shape.w:
        lanes //= 2
    start = segment.position * staging.pitch + panels.lanes
    # Staged pixel s of the segment is pixel s - origin of the map; [first, last) lies inside.
    origin, first = shape.padding[1], shape.padding[1]
    last = min(panels.segment_tiles * panels.m + panels.alpha - panels.m, shape.w + origin)
    if panels.segments > 1:
        begins = tvm_ir.bind(segment.index_in_row * (panels.segment_tiles * panels.m))
        origin, first = origin - begins, tir.max(origin - begins, 0)
        reach = panels.segment_tiles * panels.m + panels.alpha - panels.m
        last = tvm_ir.bind(tir.min(reach, shape.w + origin))

    def chunk(at: Any) -> None:
        xs = [tvm_ir.bind(load(i, at - origin, lanes)) for i in range(algorithm.alpha)]
        for i, y in enumerate(apply_matrix(algorithm.bt, xs, lanes)):
            T.buffer_store(staged, y, [i, tvm_ir.ramp(start + at, 1, lanes)])

    aligned = (
        tvm_ir.bind((first + (lanes - 1)) // lanes) if panels.segments > 1 else -(-first // lanes)
    )
    count = (last // lanes) - aligned
    if panels.segments > 1:
        with T.If(first > 0), T.Then():
            chunk(first)
    elif first % lanes:
        chunk(first)
    if panels.cuts_rows:  # of a row that is cut, what tiles of the panel read
        reach = (segment.stop - 1) * panels.m + panels.alpha
        stop = tir.min(last // lanes, (reach + (lanes - 1)) // lanes)
        aligned = tvm_ir.bind(tir.max(aligned, segment.first * panels.m // lanes))
        count = stop - aligned
    if panels.segments > 1 or panels.cuts_rows or count > 0:
        with T.serial(0, count) as number:
            chunk((aligned + number) * lanes)
    if panels.segments > 1 or (last % lanes and last - lanes != first):
        chunk(last - lanes)
