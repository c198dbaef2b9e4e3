"""Store the sums of one tile of the sparse direct convolution into the output.

Tiles and panels that do not fit are moved back to end with the map, and what they share with those
before is computed twice. Where a map is added, the output may lie in its memory: what is stored
twice would then be added twice, so every pixel is stored by the first that computes it.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_sparse import SparseLayout
from .sparse_work import Work


def stores_once(layout: SparseLayout) -> bool:
    """Whether kernels that add a map store every output once, after they have read that place."""
    return layout.is_flat


def store_row(
    work: Work,
    sums: list[Any],
    member: Any,
    number: Any,
    corner: tuple[Any, Any],
    places: list[tuple[int, int]],
) -> None:
    """Emit the stores of one output channel of a tile, if there is such a channel.

    Args:
        work: the task.
        sums: a vector for each place.
        member: the output channel, counted from its block's first.
        number: index of the tile in its panel.
        corner: line and pixel of it where the tile begins.
        places: line and pixel of every vector, from the corner.
    """
    k = tvm_ir.bind(work.first_output + member)
    if work.layout.all_rows_exist:
        _store(work, sums, (member, k), number, corner, places)
        return
    with T.If(member < work.layout.k_block), T.Then():
        _store(work, sums, (member, k), number, corner, places)


def _store(
    work: Work,
    sums: list[Any],
    channel: tuple[Any, Any],
    number: Any,
    corner: tuple[Any, Any],
    places: list[tuple[int, int]],
) -> None:
    (_, k), lanes = channel, work.layout.lanes
    biased = [tvm_ir.bind(work.epilogue.add_bias(value, k, lanes)) for value in sums]
    if work.tile.is_buffered:
        _store_short_lines(work, biased, channel, corner, places)
    elif work.epilogue.residual is not None and stores_once(work.layout):
        _store_once(work, biased, k, number, corner[1])
    else:
        for value, (dy, dx) in zip(biased, places, strict=True):
            _put(work, value, channel, corner, (dy, dx), lanes)


def _put(
    work: Work,
    value: Any,
    channel: tuple[Any, Any],
    corner: tuple[Any, Any],
    place: tuple[Any, Any],
    width: int,
) -> None:
    """Finish and store ``width`` pixels; those behind the panel's end are moved back to its end."""
    layout, (member, k), (y, x), (dy, dx) = work.layout, channel, corner, place
    line, pixel = (0, work.start + x + dx) if layout.is_flat else (work.start + y, x + dx)
    if layout.reach > layout.line:
        pixel = tir.min(pixel, work.start + (layout.line - layout.lanes))
    where = [work.image, work.stored_channel(member, k), line + dy, tvm_ir.ramp(pixel, 1, width)]
    T.buffer_store(work.output, work.epilogue.finish(value, where, k, width), where)


def _store_short_lines(
    work: Work,
    values: list[Any],
    channel: tuple[Any, Any],
    corner: tuple[Any, Any],
    places: list[tuple[int, int]],
) -> None:
    """Lines shorter than a vector, whose vectors run through the gaps between them."""
    layout, lanes = work.layout, work.layout.lanes
    for value, (_, dx) in zip(values, places, strict=True):
        T.buffer_store(work.tail, value, [tvm_ir.ramp(dx, 1, lanes)])
    width = lanes
    while width > layout.line:
        width //= 2
    with T.serial(0, work.tile.lines) as line:
        for first in dict.fromkeys((0, layout.line - width)):
            place = tvm_ir.ramp(line * layout.row_stride + first, 1, width)
            _put(work, work.tail[place], channel, corner, (line, first), width)


def _store_once(work: Work, values: list[Any], k: Any, number: Any, x: Any) -> None:
    """Vectors of a tile of a flat layout, without the pixels that are stored elsewhere."""
    layout, tile = work.layout, work.tile
    length = tile.vectors * layout.lanes
    zero = tir.const(0, "int32")
    fits = layout.total_rows % layout.rows == 0 and layout.reach % length == 0
    if fits or layout.panels == tile.count == 1:
        _store_from(work, values, k, zero + x, zero)
        return
    own = tir.max(number * length, work.again) if tile.count > 1 else work.again
    first = tvm_ir.bind(own - x)
    with T.If(first <= 0):
        with T.Then():
            _store_from(work, values, k, zero + x, zero)
        with T.Else():
            _store_from(work, values, k, zero + x, first)


def _store_from(work: Work, values: list[Any], k: Any, x: Any, first: Any) -> None:
    """Vectors of a tile from pixel ``first`` of it on; of one that was moved back, what is new."""
    layout, lanes = work.layout, work.layout.lanes
    for i, value in enumerate(values):
        begin = at = x + i * lanes
        if i == len(values) - 1 and layout.reach > layout.line:
            at = tir.min(begin, layout.line - lanes)
        passed = tir.max(first - i * lanes, 0) + (begin - at)
        if isinstance(passed, tir.IntImm):
            _store_lanes(work, value, k, at, i, int(passed))
            continue
        passed = tvm_ir.bind(passed)
        with T.If(passed <= 0):
            with T.Then():
                _store_lanes(work, value, k, at, i, 0)
            with T.Else():
                _store_lanes(work, value, k, at, i, passed)


def _store_lanes(work: Work, value: Any, k: Any, at: Any, i: int, passed: Any) -> None:
    """Vector ``i`` of a tile at pixel ``at`` of the panel, without its first ``passed`` lanes."""
    lanes = work.layout.lanes
    if isinstance(passed, int) and passed == 0:
        _finish(work, value, k, work.start + at, lanes)
        return
    T.buffer_store(work.tail, value, [tvm_ir.ramp(i * lanes, 1, lanes)])
    with T.serial(0, tir.max(lanes - passed, 0)) as left:
        lane = tvm_ir.bind(passed + left)
        place = tvm_ir.ramp(i * lanes + lane, 1, 1)
        _finish(work, work.tail[place], k, work.start + at + lane, 1)


def _finish(work: Work, value: Any, k: Any, pixel: Any, width: int) -> None:
    where = [work.image, k, 0, tvm_ir.ramp(pixel, 1, width)]
    T.buffer_store(work.output, work.epilogue.finish(value, where, k, width), where)
