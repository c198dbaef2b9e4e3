"""Input transform: V = B^T d B of every channel of a panel, lanes over tiles.

Per row segment, first vertically (rows of the map are contiguous, so this is vector arithmetic on
whole rows), then horizontally: the ``alpha`` inputs of a tile are ``m`` apart from the next
tile's, so wide loads are taken apart by shuffles. Zero padding is never copied: rows outside the
map are masked, and the few vectors that cross the map's left or right border are loaded from
inside and shifted in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import ConvShape
from ..cook_toom import CookToom
from ..geometry import QUAD, KernelLayout, ceil_div
from .linear_transform import apply_matrix
from .quads import take_apart
from .segments import Segment


def emit_input_transform(
    data: Any, v: Any, shape: ConvShape, layout: KernelLayout, algorithm: CookToom, segment: Segment
) -> None:
    """Emit the transform of all channels of one row segment.

    Args:
        data: buffer [N, C, H, W].
        v: scratch, laid out by ``layout.v``.
        shape: the convolution.
        layout: memory layout.
        algorithm: F(m, r).
        segment: where the row segment lies in the image and in the panel.
    """
    panels = layout.panels
    with (
        T.serial(0, shape.c) as channel,
        tvm_ir.local_buffer((panels.alpha, panels.staged_width)) as staged,
    ):
        top_row = segment.tile_y * panels.m - shape.padding[0]
        rows = [top_row + i for i in range(panels.alpha)]
        inside = tir.all(top_row >= 0, top_row + panels.alpha <= shape.h)
        with T.If(inside):
            with T.Then():
                source = _Rows(data, shape, segment.image, channel, rows, masked=False)
                _emit_vertical(source, staged, layout, algorithm, segment)
            with T.Else():
                source = _Rows(data, shape, segment.image, channel, rows, masked=True)
                _emit_vertical(source, staged, layout, algorithm, segment)
        _emit_horizontal(staged, v, layout, algorithm, segment, channel)


class _Rows:
    """Vectors of the map's rows at any horizontal position, zero outside of the map."""

    def __init__(
        self, data: Any, shape: ConvShape, image: Any, channel: Any, rows: Sequence, masked: bool
    ):
        self.data, self.shape, self.image, self.channel = data, shape, image, channel
        self.rows = rows
        self.masks = None
        if masked:
            # The row is clamped into the map and multiplied by 0 or 1: cheaper than a branch per
            # row, and a tile that touches the border reads the border row anyway.
            one, zero = tir.const(1.0, "float32"), tir.const(0.0, "float32")
            self.masks = [
                tvm_ir.bind(tir.Select(tir.all(y >= 0, y < shape.h), one, zero)) for y in rows
            ]
            self.rows = [
                tvm_ir.bind(tir.max(tir.min(y, tir.const(shape.h - 1, "int32")), 0)) for y in rows
            ]

    def load(self, i: int, x: Any, lanes: int) -> Any:
        """Row ``i`` of the tile at ``x``..``x + lanes``, all inside of the map horizontally."""
        index = [self.image, self.channel, self.rows[i], tvm_ir.ramp(x, 1, lanes)]
        return self._masked(i, self.data[tuple(index)], lanes)

    def load_across_border(self, i: int, x: int, lanes: int) -> Any:
        """The same for a fixed ``x`` that may lie partly outside: loaded inside, then shifted."""
        width = self.shape.w
        span = min(lanes, width)
        start = min(max(x, 0), width - span)
        taken = [x + k - start if 0 <= x + k < width else span for k in range(lanes)]
        index = [self.image, self.channel, self.rows[i], tvm_ir.ramp(start, 1, span)]
        loaded = self._masked(i, self.data[tuple(index)], span)
        return tvm_ir.shuffle([loaded, tvm_ir.broadcast(0.0, lanes)], taken)

    def _masked(self, i: int, vector: Any, lanes: int) -> Any:
        return vector if self.masks is None else vector * tvm_ir.broadcast(self.masks[i], lanes)


def _emit_vertical(
    source: _Rows, staged: Any, layout: KernelLayout, algorithm: CookToom, segment: Segment
) -> None:
    """B^T from the left, vector by vector along the rows; results are staged."""
    panels, shape = layout.panels, source.shape
    lanes, left, width = panels.lanes, shape.padding[1], shape.w
    # Chunk c of the whole tile row covers x = c * lanes - left and on.
    first = ceil_div(left, lanes)
    last = (width + left) // lanes
    beyond = ceil_div(width + left, lanes)
    border = [*range(min(first, beyond)), *range(max(first, last), beyond)]

    def store(chunk: Any, xs: list[Any]) -> None:
        xs = [tvm_ir.bind(x) for x in xs]
        for i, y in enumerate(apply_matrix(algorithm.bt, xs, lanes)):
            T.buffer_store(staged, y, [i, tvm_ir.ramp(chunk * lanes, 1, lanes)])

    with T.serial(0, panels.staged_width // lanes) as chunk:
        position = segment.index_in_row * panels.segment_chunks + chunk
        with T.If(tir.all(position >= first, position < last)):
            with T.Then():
                x = position * lanes - left
                store(chunk, [source.load(i, x, lanes) for i in range(panels.alpha)])
            with T.Else():
                for i in range(panels.alpha):
                    zero = tvm_ir.broadcast(0.0, lanes)
                    T.buffer_store(staged, zero, [i, tvm_ir.ramp(chunk * lanes, 1, lanes)])
                for c in border:
                    with T.If(position == c), T.Then():
                        x = c * lanes - left
                        loads = [
                            source.load_across_border(i, x, lanes) for i in range(panels.alpha)
                        ]
                        store(chunk, loads)


def _emit_horizontal(
    staged: Any, v: Any, layout: KernelLayout, algorithm: CookToom, segment: Segment, channel: Any
) -> None:
    """B from the right: take apart, transform, and store every coordinate's vector of tiles."""
    panels = layout.panels
    m, alpha, lanes = panels.m, panels.alpha, panels.lanes
    base = layout.v.channel_offset(channel) + segment.position * panels.segment_tiles
    with T.serial(0, panels.segment_vectors) as vector:
        for i in range(alpha):
            start = vector * (lanes * m)

            def load_quad(offset: int, i: int = i, start: Any = start) -> Any:
                return staged[i, tvm_ir.ramp(start + offset, 1, QUAD)]

            xs = take_apart(load_quad, m, alpha, lanes)
            for j, y in enumerate(apply_matrix(algorithm.bt, xs, lanes)):
                offset = base + (i * alpha + j) * layout.v.coordinate_stride + vector * lanes
                T.buffer_store(v, y, [tvm_ir.ramp(offset, 1, lanes)])
