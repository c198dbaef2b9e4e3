"""Output transform: Y = A^T M A of one block of output channels, with the epilogue, into NCHW.

The ``m`` outputs of a tile lie beside each other, so the ``m`` result vectors of a row are woven
together by one shuffle and stored with full width; the map's right border takes what fits.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import ConvShape
from ..cook_toom import CookToom
from ..geometry import KernelLayout
from .epilogue import EpilogueOperands
from .linear_transform import apply_matrix
from .segments import Segment, each_segment


def emit_output_transform(
    product: Any,
    output: Any,
    block: Any,
    panel: Any,
    shape: ConvShape,
    layout: KernelLayout,
    algorithm: CookToom,
    epilogue: EpilogueOperands,
) -> None:
    """Emit the transform of every row segment of a panel for one block of output channels.

    Args:
        product: scratch of products.
        output: buffer [N, K, OH, OW].
        block: index of the block of output channels.
        panel: index of the panel.
        shape: the convolution.
        layout: memory layout.
        algorithm: F(m, r).
        epilogue: what follows the convolution, with its buffers.
    """
    left = shape.k - block * layout.k_block
    count = tir.min(left, layout.k_block) if shape.k % layout.k_block else layout.k_block
    panels = layout.panels
    with T.serial(0, count) as row, each_segment(panels, panel) as segment:
        k = tvm_ir.bind(block * layout.k_block + row)
        base = layout.product.channel_offset(row) + segment.position * panels.segment_tiles
        base = tvm_ir.bind(base)
        with T.serial(0, panels.segment_vectors) as vector:
            rows = _transformed(product, base + vector * panels.lanes, layout, algorithm)
            writer = _Writer(output, shape, layout, epilogue, segment, k, vector)
            writer.write(rows)


def _transformed(product: Any, base: Any, layout: KernelLayout, algorithm: CookToom) -> list[list]:
    """The m x m result vectors [row][column] of one vector of tiles."""
    alpha, lanes, step = algorithm.alpha, layout.panels.lanes, layout.product.coordinate_stride
    half = []
    for i in range(alpha):
        offsets = [base + (i * alpha + j) * step for j in range(alpha)]
        xs = [tvm_ir.bind(product[tvm_ir.ramp(o, 1, lanes)]) for o in offsets]
        half.append(apply_matrix(algorithm.at, xs, lanes))
    columns = [
        apply_matrix(algorithm.at, [half[i][j] for i in range(alpha)], lanes)
        for j in range(algorithm.m)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


class _Writer:
    """Writes the result vectors of one vector of tiles."""

    def __init__(
        self,
        output: Any,
        shape: ConvShape,
        layout: KernelLayout,
        epilogue: EpilogueOperands,
        segment: Segment,
        k: Any,
        vector: Any,
    ):
        panels = layout.panels
        self.output, self.shape, self.panels = output, shape, panels
        self.epilogue, self.segment, self.k = epilogue, segment, k
        self.span = panels.m * panels.lanes
        first_tile = segment.index_in_row * panels.segment_tiles + vector * panels.lanes
        self.x = tvm_ir.bind(first_tile * panels.m)

    def write(self, rows: list[list]) -> None:
        """Apply the epilogue and store what lies inside of the map."""
        m = self.panels.m
        for i, row in enumerate(rows):
            y = self.segment.tile_y * m + i
            if self.shape.oh % m == 0:
                self._write_row(y, row)
            else:
                with T.If(y < self.shape.oh), T.Then():
                    self._write_row(y, row)

    def _write_row(self, y: Any, row: list) -> None:
        lanes = self.panels.lanes
        row = [tvm_ir.bind(self.epilogue.add_bias(value, self.k, lanes)) for value in row]
        woven = row[0]
        if len(row) > 1:
            order = [j * lanes + t for t in range(lanes) for j in range(len(row))]
            woven = tvm_ir.bind(tvm_ir.shuffle(row, order))
        tail = self.shape.ow % self.span
        if tail == 0 and self.panels.segments == 1:
            self._store(y, self.x, woven, self.span)
            return
        with T.If(self.x + self.span <= self.shape.ow):
            with T.Then():
                self._store(y, self.x, woven, self.span)
            if tail:
                with T.Else(), T.If(self.x < self.shape.ow), T.Then():
                    self._write_tail(y, woven, tail)

    def _write_tail(self, y: Any, woven: Any, tail: int) -> None:
        """The last vector of a tile row: whole vectors, then halves of it, down to one."""
        done, width = 0, self.panels.lanes
        while done < tail:
            while done + width > tail:
                width //= 2
            part = tvm_ir.shuffle([woven], range(done, done + width))
            self._store(y, self.x + done, part, width)
            done += width

    def _store(self, y: Any, x: Any, value: Any, width: int) -> None:
        index = [self.segment.image, self.k, y, tvm_ir.ramp(x, 1, width)]
        T.buffer_store(self.output, self.epilogue.finish(value, index, self.k, width), index)
