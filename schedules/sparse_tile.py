"""One tile of the sparse direct convolution: some output channels x vectors of output pixels.

Lanes are pixels and every tap is an offset, so an unstructured nonzero costs one broadcast and, per
vector of pixels, one multiply-add with its input read straight from memory. Several output channels
are walked together: their sums are independent chains, and they share the load of their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import ceil_div
from ..geometry_sparse import SparseLayout, Tile
from .epilogue import EpilogueOperands
from .sparse_gemm import wide
from .splat import load_splats


@dataclass(frozen=True)
class Panel:
    """What one task computes.

    Attributes:
        layout: memory layout.
        tile: what is in registers at a time.
        packed: buffers starts, rows, offsets, values (see :mod:`tvm_sparsewino.packing_sparse`).
        source: function of an index, whole or vector, that reads the inputs: from the scratch, or
            from the map.
        tail: scratch of one tile's sums, for lines that are shorter than a vector.
        output: buffer [N, K, OH, OW].
        epilogue: what follows the convolution, with its buffers.
        image: image of the batch.
        block: block of output channels, counted through the groups.
        start: first output row, or pixel where inputs are read in place.
    """

    layout: SparseLayout
    tile: Tile
    packed: Sequence[Any]
    source: Any
    tail: Any
    output: Any
    epilogue: EpilogueOperands
    image: Any
    block: Any
    start: Any


def emit_tile(panel: Panel, number: Any, index: Any) -> None:
    """Emit slice ``index`` of the output channels for tile ``number`` of the panel."""
    layout, tile = panel.layout, panel.tile
    lanes, width = layout.lanes, layout.rows_at_once
    y, x = _corner(layout, tile, number)
    base = tvm_ir.bind(wide(y * layout.row_stride + x))
    places = [_place(layout, tile, i) for i in range(tile.vectors)]

    def at(row: int, i: int) -> Any:
        return tvm_ir.ramp((row * tile.vectors + i) * lanes, 1, lanes)

    with tvm_ir.local_buffer((width * tile.vectors * lanes,)) as sums:
        for row in range(width):
            for i in range(tile.vectors):
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at(row, i)])
        starts, rows, offsets, values = panel.packed
        slice_number = tvm_ir.bind(panel.block * layout.slices + index)
        first = tvm_ir.bind(wide(starts[slice_number]))
        with T.serial(0, wide(starts[slice_number + 1]) - first) as step:
            here = tvm_ir.bind((first + step) * width)
            splats = load_splats(values, here, width, lanes)
            for row, value in enumerate(splats):
                offset = tvm_ir.bind(wide(offsets[here + row]) + base)
                for i, (dy, dx) in enumerate(places):
                    place = offset + (dy * layout.row_stride + dx)
                    product = value * panel.source(tvm_ir.ramp(place, 1, lanes))
                    T.buffer_store(sums, sums[at(row, i)] + product, [at(row, i)])
        for row in range(width):
            k = tvm_ir.bind(rows[slice_number * width + row])
            taken = [sums[at(row, i)] for i in range(tile.vectors)]
            if layout.all_rows_exist:
                _write(panel, taken, k, y, x, places)
            else:
                with T.If(k >= 0), T.Then():
                    _write(panel, taken, k, y, x, places)


def _corner(layout: SparseLayout, tile: Tile, number: Any) -> tuple[Any, Any]:
    """Line and pixel of it where a tile begins."""
    if tile.lines:
        return tvm_ir.bind(tir.min(number * tile.lines, layout.lines - tile.lines)), 0
    parts = tile.count // layout.lines
    length = tile.vectors * layout.lanes
    y = tvm_ir.bind(number // parts)
    return y, tvm_ir.bind(tir.min((number - y * parts) * length, layout.line - length))


def _place(layout: SparseLayout, tile: Tile, i: int) -> tuple[int, int]:
    """Line and pixel of vector ``i`` of a tile, from the tile's corner."""
    lanes = layout.lanes
    if tile.is_buffered or not tile.lines:
        return 0, i * lanes
    line, vector = divmod(i, ceil_div(layout.line, lanes))
    return line, min(vector * lanes, layout.line - lanes)


def _write(
    panel: Panel, sums: list[Any], k: Any, y: Any, x: Any, places: list[tuple[int, int]]
) -> None:
    """Store the sums of output channel ``k``."""
    layout, lanes, epilogue = panel.layout, panel.layout.lanes, panel.epilogue

    def store(value: Any, dy: Any, dx: Any, width: int) -> None:
        line, pixel = (0, panel.start + x) if layout.in_place else (panel.start + y, x)
        where = [panel.image, k, line + dy, tvm_ir.ramp(pixel + dx, 1, width)]
        T.buffer_store(panel.output, epilogue.finish(value, where, k, width), where)

    biased = [tvm_ir.bind(epilogue.add_bias(value, k, lanes)) for value in sums]
    if not panel.tile.is_buffered:
        for value, (dy, dx) in zip(biased, places, strict=True):
            store(value, dy, dx, lanes)
        return
    for value, (_, dx) in zip(biased, places, strict=True):
        T.buffer_store(panel.tail, value, [tvm_ir.ramp(dx, 1, lanes)])
    width = lanes
    while width > layout.line:
        width //= 2
    with T.serial(0, panel.tile.lines) as line:
        for first in dict.fromkeys((0, layout.line - width)):
            place = tvm_ir.ramp(line * layout.row_stride + first, 1, width)
            store(panel.tail[place], line, first, width)
