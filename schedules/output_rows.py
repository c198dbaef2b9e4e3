"""The last step of the output transform: staged rows of a panel, with the epilogue, into NCHW."""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..config import ConvShape
from ..geometry import Panels
from .epilogue import EpilogueOperands
from .segments import Segment


def emit_rows(
    woven: Any,
    output: Any,
    shape: ConvShape,
    panels: Panels,
    epilogue: EpilogueOperands,
    segment: Segment,
    k: Any,
) -> None:
    """Emit the writing of one row segment of one output channel.

    Args:
        woven: buffer [m][pixels of all row segments of the panel].
        output: buffer [N, K, OH, OW].
        shape: the convolution.
        panels: the cut into panels.
        epilogue: what follows the convolution, with its buffers.
        segment: where the row segment lies in the image and in the panel.
        k: the output channel.
    """
    width = panels.segment_tiles * panels.m
    start, x = segment.position * width, segment.index_in_row * width
    rest = shape.ow - (panels.segments - 1) * width

    def write(i: Any, y: Any) -> None:
        def store(at: Any, lanes: int) -> None:
            index = [segment.image, k, y, tvm_ir.ramp(x + at, 1, lanes)]
            value = woven[i, tvm_ir.ramp(start + at, 1, lanes)]
            T.buffer_store(output, epilogue.finish(value, index, k, lanes), index)

        if panels.segments == 1:
            _emit_row(store, rest, panels.lanes)
        else:
            with T.If(segment.index_in_row < panels.segments - 1):
                with T.Then():
                    _emit_row(store, width, panels.lanes)
                with T.Else():
                    _emit_row(store, rest, panels.lanes)

    with T.serial(0, panels.m) as i:
        y = tvm_ir.bind(segment.tile_y * panels.m + i)
        if shape.oh % panels.m == 0:
            write(i, y)
        else:
            with T.If(y < shape.oh), T.Then():
                write(i, y)


def _emit_row(store: Any, width: int, lanes: int) -> None:
    """Whole vectors, and one that ends with the row: it overlaps the one before."""
    while lanes > width:
        lanes //= 2
    with T.serial(0, width // lanes) as chunk:
        store(chunk * lanes, lanes)
    if width % lanes:
        store(width - lanes, lanes)
