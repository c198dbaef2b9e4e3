"""Depthwise convolution: nothing is summed over channels, so memory traffic and copies dominate.

A register block is a few output rows of one vector: input rows that several of them read are loaded
once, and a small filter's taps stay in registers. Where filters are too large for straight code the
block loops over their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import ceil_div
from ..geometry_depthwise import DepthwiseLayout, register_rows
from ..geometry_panels import CopiedRow
from .copied_rows import emit_copy, emit_zeros
from .epilogue import EpilogueOperands
from .tails import emit_tail

UNROLLED_TAPS = 25


@dataclass(frozen=True)
class _Plane:
    """One output channel's part of a task: where it reads and writes.

    Attributes:
        layout: memory layout.
        scratch: the planes.
        values: weights [K * R * S].
        output: buffer [N, K, OH, OW].
        epilogue: what follows the convolution, with its buffers.
        start: first float of the plane.
        image: image of the batch.
        k: output channel.
        row: first output row of the panel.
    """

    layout: DepthwiseLayout
    scratch: Any
    values: Any
    output: Any
    epilogue: EpilogueOperands
    start: Any
    image: Any
    k: Any
    row: Any


def emit_depthwise(
    data: Any,
    values: Any,
    output: Any,
    layout: DepthwiseLayout,
    epilogue: EpilogueOperands,
    vector_registers: int,
) -> None:
    """Emit the whole convolution.

    Args:
        data: buffer [N, C, H, W].
        values: weights [K * R * S].
        output: buffer [N, K, OH, OW].
        layout: memory layout.
        epilogue: what follows the convolution, with its buffers.
        vector_registers: registers of the target; bounds the rows of a register block.
    """
    shape = layout.shape
    with (
        T.parallel(0, layout.tasks) as task,
        tvm_ir.scratch((layout.scratch_size,)) as scratch,
    ):
        row = tvm_ir.bind(task % layout.panels * layout.rows)
        run = tvm_ir.bind(task // layout.panels % layout.channel_runs)
        image = tvm_ir.bind(task // (layout.panels * layout.channel_runs))
        # What no copy overwrites is padding.
        emit_zeros(scratch, 0, 0, layout.scratch_size, layout.lanes)
        end = tvm_ir.bind(tir.min((run + 1) * layout.channels, shape.c))
        with T.serial(0, ceil_div(layout.channels, layout.planes)) as part:
            first = tvm_ir.bind(run * layout.channels + part * layout.planes)
            count = tvm_ir.bind(tir.max(tir.min(layout.planes, end - first), 0))
            _emit_input(data, scratch, layout, image, first, count, row)
            with T.serial(0, count) as p, T.serial(0, layout.outputs) as multiple:
                k = tvm_ir.bind((first + p) * layout.outputs + multiple)
                start = tvm_ir.bind(p * layout.plane_stride)
                buffers = (scratch, values, output, epilogue)
                plane = _Plane(layout, *buffers, start, image, k, row)
                _emit_plane(plane, register_rows(vector_registers))


def _emit_input(
    data: Any, scratch: Any, layout: DepthwiseLayout, image: Any, first: Any, count: Any, row: Any
) -> None:
    """Rows of the map that the panel reads, for ``count`` channels."""
    shape, length = layout.shape, layout.phase_stride
    rows = layout.phases[0] * layout.phase_rows
    with T.serial(0, count) as p, T.serial(0, rows) as position:
        # Rows in the map's order, which the CPU foresees.
        phase, index = position % layout.phases[0], position // layout.phases[0]
        y = tvm_ir.bind((row + index) * shape.stride[0] + phase - shape.padding[0])
        place = (phase * layout.phase_rows + index) * layout.row_stride
        base = tvm_ir.bind(p * layout.plane_stride + place)
        with T.If(tir.all(y >= 0, y < shape.h)), T.Then():
            for remainder in range(layout.phases[1]):
                start = remainder - shape.padding[1]
                part = CopiedRow(start, shape.stride[1], length, shape.w)
                at = base + remainder * length
                emit_copy(data, [image, first + p, y], scratch, at, part, layout.lanes)


def _emit_plane(plane: _Plane, most: int) -> None:
    """Every output of a channel's panel, in register blocks of up to ``most`` rows."""
    layout = plane.layout
    whole, tail = divmod(layout.shape.ow, layout.lanes)
    taps = _taps(plane)
    tiles = ceil_div(layout.rows, most)
    height, taller = divmod(layout.rows, tiles)
    after = taller * (height + 1)
    for first, blocks, size in ((0, taller, height + 1), (after, tiles - taller, height)):
        if not blocks:
            continue
        with T.serial(0, blocks) as block:
            y = tvm_ir.bind(first + block * size)
            if whole:
                with T.serial(0, whole) as vector:
                    x = tvm_ir.bind(vector * layout.lanes)
                    _emit_block(plane, taps, y, size, x, layout.lanes)
            if tail:
                _emit_block(plane, taps, y, size, whole * layout.lanes, tail)


def _taps(plane: _Plane) -> list[Any]:
    """The filter's taps in every lane; none where there are too many."""
    shape, lanes = plane.layout.shape, plane.layout.lanes
    if shape.taps > UNROLLED_TAPS:
        return []
    first = plane.k * shape.taps
    return [
        tvm_ir.bind(tvm_ir.broadcast(plane.values[first + tap], lanes)) for tap in range(shape.taps)
    ]


def _emit_block(plane: _Plane, taps: list[Any], y: Any, size: int, x: Any, width: int) -> None:
    """``size`` output rows from ``y`` on, ``width`` columns from ``x`` on."""
    layout = plane.layout
    base = tvm_ir.bind(plane.start + y * layout.row_stride + x)

    def load(row: Any, j: int) -> Any:
        offset = base + layout.tap_offset(row, j)
        return tvm_ir.bind(plane.scratch[tvm_ir.ramp(offset, 1, layout.lanes)])

    if taps:
        _write(plane, _straight(plane, taps, size, load), y, x, width)
        return
    with tvm_ir.local_buffer((size * layout.lanes,)) as sums:
        at = [tvm_ir.ramp(row * layout.lanes, 1, layout.lanes) for row in range(size)]
        _looped(plane, sums, at, load)
        _write(plane, [sums[place] for place in at], y, x, width)


def _straight(
    plane: _Plane, taps: list[Any], size: int, load: Callable[[Any, int], Any]
) -> list[Any]:
    """The sums of ``size`` rows; input rows are loaded once."""
    shape = plane.layout.shape
    down, under = shape.stride[0], shape.dilation[0]
    readers: dict[int, list[tuple[int, int]]] = {}
    for row in range(size):
        for i in range(shape.r):
            readers.setdefault(row * down + i * under, []).append((row, i))
    sums: list[Any] = [None] * size
    for place in sorted(readers):
        for j in range(shape.s):
            value = load(place, j)
            for row, i in readers[place]:
                product = taps[i * shape.s + j] * value
                sums[row] = tvm_ir.bind(product if sums[row] is None else sums[row] + product)
    return sums


def _looped(plane: _Plane, sums: Any, at: list[Any], load: Callable[[Any, int], Any]) -> None:
    """The same in a loop over the filter's rows, for large filters."""
    shape, lanes = plane.layout.shape, plane.layout.lanes
    for place in at:
        T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [place])
    with T.serial(0, shape.r) as i:
        first = tvm_ir.bind((plane.k * shape.r + i) * shape.s)
        for j in range(shape.s):
            tap = tvm_ir.bind(tvm_ir.broadcast(plane.values[first + j], lanes))
            for row, place in enumerate(at):
                value = load(row * shape.stride[0] + i * shape.dilation[0], j)
                T.buffer_store(sums, sums[place] + tap * value, [place])


def _write(plane: _Plane, sums: list[Any], y: Any, x: Any, width: int) -> None:
    """``width`` lanes of every row's sums through the epilogue into the output."""
    layout, shape = plane.layout, plane.layout.shape
    for row, value in enumerate(sums):
        biased = tvm_ir.bind(plane.epilogue.add_bias(value, plane.k, layout.lanes))
        line = tvm_ir.bind(plane.row + y + row)
        if shape.oh % layout.rows:
            with T.If(line < shape.oh), T.Then():
                _write_row(plane, biased, line, x, width)
        else:
            _write_row(plane, biased, line, x, width)


def _write_row(plane: _Plane, value: Any, line: Any, x: Any, width: int) -> None:
    """The first ``width`` lanes."""

    def store(part: Any, first: int, lanes: int) -> None:
        where = [plane.image, plane.k, line, tvm_ir.ramp(x + first, 1, lanes)]
        finished = plane.epilogue.finish(part, where, plane.k, lanes)
        T.buffer_store(plane.output, finished, where)

    emit_tail(value, plane.layout.lanes, width, store)
