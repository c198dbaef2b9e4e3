"""Last step of the output transform: staged rows of a panel, through the epilogue, into NCHW."""

from __future__ import annotations

from math import gcd
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import Panels
from ..geometry_pooling import OutputMap
from .epilogue import EpilogueOperands
from .segments import Segment


def emit_rows(
    woven: Any,
    output: Any,
    written: OutputMap,
    panels: Panels,
    epilogue: EpilogueOperands,
    segment: Segment,
    k: Any,
) -> None:
    """Emit the writing of one row segment of one output channel.

    Args:
        woven: buffer [rows of a tile][pixels of all row segments of the panel].
        output: buffer [N, K, height, width].
        written: the map that is written.
        panels: the cut into panels.
        epilogue: what follows the convolution, with its buffers; a pool has been done.
        segment: where the row segment lies in the image and in the panel.
        k: the output channel.
    """
    width = panels.segment_tiles * written.step
    once = epilogue.residual is not None  # the output may lie where what is added does
    start, x = segment.start * written.step, segment.index_in_row * width
    rest = written.width - (panels.segments - 1) * width

    def write(i: Any, y: Any) -> None:
        def store(at: Any, lanes: int) -> None:
            index = [segment.image, k, y, tvm_ir.ramp(x + at, 1, lanes)]
            value = woven[i, tvm_ir.ramp(start + at, 1, lanes)]
            if epilogue.epilogue.pool == "none":
                value = epilogue.finish(value, index, k, lanes)
            T.buffer_store(output, value, index)

        if panels.cuts_rows:
            with T.If(tir.all(segment.first == 0, segment.stop == panels.segment_tiles)):
                with T.Then():
                    _emit_row(store, rest, panels.lanes, once)
                with T.Else():
                    _emit_part(store, written, panels, segment)
        elif panels.segments == 1:
            _emit_row(store, rest, panels.lanes, once)
        else:
            with T.If(segment.index_in_row < panels.segments - 1):
                with T.Then():
                    _emit_row(store, width, panels.lanes, once)
                if rest:  # a last tile of one column has no window
                    with T.Else():
                        _emit_row(store, rest, panels.lanes, once)

    with T.serial(0, written.step) as i:
        y = tvm_ir.bind(segment.tile_y * written.step + i)
        if panels.tiles_y * written.step == written.height:
            write(i, y)
        else:
            with T.If(y < written.height), T.Then():
                write(i, y)


def _emit_row(store: Any, width: int, lanes: int, once: bool) -> None:
    """Whole vectors, and one that ends with the row: it overlaps the one before.

    Where every number is to be stored ``once``, shorter vectors instead.
    """
    while lanes > width:
        lanes //= 2
    with T.serial(0, width // lanes) as chunk:
        store(chunk * lanes, lanes)
    if not once:
        if width % lanes:
            store(width - lanes, lanes)
        return
    part = lanes // 2
    while part:
        if width // part % 2:
            store(width // (2 * part) * (2 * part), part)
        part //= 2


def _emit_part(store: Any, written: OutputMap, panels: Panels, segment: Segment) -> None:
    """The tiles of a row that lie in the panel: nothing beside them may be written."""
    first = tvm_ir.bind(segment.first * written.step)
    count = tvm_ir.bind(tir.min(segment.stop * written.step, written.width) - first)
    # What parts of a row begin and end with multiples of.
    unit = gcd(gcd(panels.segment_tiles, panels.lanes) * written.step, written.width, panels.lanes)
    whole = tvm_ir.bind(count // panels.lanes)
    with T.serial(0, whole) as chunk:
        store(first + chunk * panels.lanes, panels.lanes)
    if unit < panels.lanes:
        with T.serial(0, count % panels.lanes // unit) as chunk:
            store(first + whole * panels.lanes + chunk * unit, unit)
