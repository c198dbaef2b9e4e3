"""Dense direct convolution, register-blocked: output channels x vectors of output pixels.

Tasks run in parallel and share nothing, so results do not depend on the number of threads. A task
computes a block of output channels of one panel. Block by block of input channels it copies the
panel's rows (:mod:`.direct_input`), then, tile by tile (a few vectors of pixels), runs through its
output channels: what a tile reads stays in L1, the weights stream past it in the order in which
they are packed. Sums of a block of channels wait in scratch for the next; the last block applies
the epilogue and stores. Borders cost nothing: the copies hold the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_direct import DirectLayout
from .direct_input import emit_direct_input
from .epilogue import EpilogueOperands

UNROLLED_TAPS = 25  # filters with more taps keep a loop over their rows


def emit_direct_conv(
    data: Any,
    values: Any,
    output: Any,
    layout: DirectLayout,
    epilogue: EpilogueOperands,
    vector_registers: int,
) -> None:
    """Emit the whole convolution.

    Args:
        data: buffer [N, C, H, W].
        values: packed weights, see :mod:`tvm_sparsewino.packing_direct`.
        output: buffer [N, K, OH, OW].
        layout: memory layout.
        epilogue: what follows the convolution, with its buffers.
        vector_registers: registers of the target; bounds the accumulators.
    """
    blocks = layout.shape.groups * layout.k_blocks
    sums_size = layout.slices * layout.rows_at_once * layout.sums_stride
    with (
        T.parallel(0, layout.tasks) as task,
        tvm_ir.scratch((layout.channel_block * layout.channel_stride + layout.lanes,)) as scratch,
        tvm_ir.scratch((sums_size if layout.channel_blocks > 1 else layout.lanes,)) as partial,
    ):
        block = tvm_ir.bind(task // layout.panels % blocks)
        image = tvm_ir.bind(task // (layout.panels * blocks))
        row = tvm_ir.bind(task % layout.panels * layout.rows)
        group = tvm_ir.bind(block // layout.k_blocks)
        with T.serial(0, layout.channel_blocks) as part:
            channel = tvm_ir.bind(part * layout.channel_block)
            count = tvm_ir.bind(tir.min(layout.channel_block, layout.channels - channel))
            first = group * layout.channels + channel
            emit_direct_input(data, scratch, layout, image, first, count, row)
            task_ = _Task(
                layout,
                scratch,
                partial,
                values,
                output,
                epilogue,
                image,
                block,
                row,
                part,
                channel,
                count,
            )
            for first_vector, tiles, width in layout.tile_runs(vector_registers):
                with T.serial(0, tiles) as tile:
                    _emit_tile(task_, tvm_ir.bind(first_vector + tile * width), width)


@dataclass(frozen=True)
class _Task:
    """One block of input channels of one task: buffers and index expressions."""

    layout: DirectLayout
    scratch: Any
    partial: Any
    values: Any
    output: Any
    epilogue: EpilogueOperands
    image: Any
    block: Any
    row: Any
    part: Any
    channel: Any
    count: Any

    @property
    def k_first(self) -> Any:
        """First output channel of the task."""
        layout = self.layout
        group = self.block // layout.k_blocks
        return group * layout.per_group + self.block % layout.k_blocks * layout.k_block

    @property
    def k_count(self) -> Any:
        """Output channels of the task."""
        layout = self.layout
        left = layout.per_group - self.block % layout.k_blocks * layout.k_block
        return tir.min(layout.k_block, left)


def _emit_tile(task: _Task, vector: Any, width: int) -> None:
    """All output channels of ``width`` vectors of pixels from ``vector`` on."""
    layout = task.layout
    rows, lanes = layout.rows_at_once, layout.lanes
    pixels = [_Pixels(task, vector + i) for i in range(width)]
    bases = [tvm_ir.bind(p.base) for p in pixels]
    with (
        T.serial(0, layout.slices) as index,
        tvm_ir.local_buffer((rows * width * lanes,)) as sums,
    ):

        def at(row: int, i: int) -> Any:
            return tvm_ir.ramp((row * width + i) * lanes, 1, lanes)

        def waiting(row: int, i: int) -> Any:
            k = index * rows + row
            return tvm_ir.ramp(k * layout.sums_stride + (vector + i) * lanes, 1, lanes)

        every = [(row, i) for row in range(rows) for i in range(width)]

        def start() -> None:
            for row, i in every:
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at(row, i)])

        def resume() -> None:
            for row, i in every:
                T.buffer_store(sums, task.partial[waiting(row, i)], [at(row, i)])

        def suspend() -> None:
            for row, i in every:
                T.buffer_store(task.partial, sums[at(row, i)], [waiting(row, i)])

        def finish() -> None:
            for i, p in enumerate(pixels):
                p.write([sums[at(row, i)] for row in range(rows)], index * rows)

        several = layout.channel_blocks > 1
        _either(task.part == 0, start, resume) if several else start()
        _emit_products(task, index, bases, sums, at)
        _either(task.part == layout.channel_blocks - 1, finish, suspend) if several else finish()


def _either(condition: Any, then: Any, otherwise: Any) -> None:
    with T.If(condition):
        with T.Then():
            then()
        with T.Else():
            otherwise()


def _emit_products(task: _Task, index: Any, bases: list[Any], sums: Any, at: Any) -> None:
    """Every channel and tap of one register block."""
    layout, r = task.layout, task.layout.shape.r
    rows, lanes = layout.rows_at_once, layout.lanes
    start = tvm_ir.bind(layout.weights_offset(task.block, task.channel, task.count, index))

    def step(inputs: list[Any], weights: Any) -> None:
        xs = [tvm_ir.bind(task.scratch[tvm_ir.ramp(x, 1, lanes)]) for x in inputs]
        for row in range(rows):
            value = tvm_ir.bind(tvm_ir.broadcast(task.values[weights + row], lanes))
            for i, x in enumerate(xs):
                T.buffer_store(sums, sums[at(row, i)] + value * x, [at(row, i)])

    with T.serial(0, task.count) as c:
        inputs = [tvm_ir.bind(base + c * layout.channel_stride) for base in bases]
        weights = tvm_ir.bind(start + c * (layout.taps * rows))
        if layout.taps <= UNROLLED_TAPS:
            for tap in range(layout.taps):
                offset = layout.tap_offset(*divmod(tap, r))
                step([x + offset for x in inputs], weights + tap * rows)
            return
        with T.serial(0, r) as i:
            for j in range(r):
                offset = layout.tap_offset(i, j)
                step([x + offset for x in inputs], weights + (i * r + j) * rows)


class _Pixels:
    """One vector of output pixels: where it reads and where it writes."""

    def __init__(self, task: _Task, vector: Any) -> None:
        layout = task.layout
        self.task, self.lanes = task, layout.lanes
        rows = tir.min(layout.rows, layout.oh - task.row)
        if layout.is_flat:
            # Rows of the panel are contiguous in the output: x runs on past the end of the first.
            self.base = vector * layout.lanes
            self.y, self.x = task.row, tvm_ir.bind(self.base)
            self.left = tvm_ir.bind(rows * layout.ow - self.x)
        else:
            y = tvm_ir.bind(vector // layout.row_vectors)
            x = (vector - y * layout.row_vectors) * layout.lanes
            self.base = y * layout.row_stride + x
            self.y, self.x = tvm_ir.bind(task.row + y), tvm_ir.bind(x)
            inside = tir.if_then_else(y < rows, layout.ow, 0)
            self.left = tvm_ir.bind(inside - self.x)

    def write(self, values: list[Any], index: Any) -> None:
        """Store the pixels of channels ``index`` and on, as far as they are in the output."""
        layout = self.task.layout
        checked = layout.per_group % layout.k_block or layout.k_block % layout.rows_at_once
        for row, value in enumerate(values):
            if checked:
                with T.If(index + row < self.task.k_count), T.Then():
                    self._write_row(value, tvm_ir.bind(self.task.k_first + index + row))
            else:
                self._write_row(value, tvm_ir.bind(self.task.k_first + index + row))

    def _write_row(self, value: Any, k: Any) -> None:
        task, lanes = self.task, self.lanes
        value = tvm_ir.bind(task.epilogue.add_bias(value, k, lanes))

        def store(value: Any, x: Any, width: int) -> None:
            where = [task.image, k, self.y, tvm_ir.ramp(x, 1, width)]
            T.buffer_store(task.output, task.epilogue.finish(value, where, k, width), where)

        with T.If(self.left >= lanes):
            with T.Then():
                store(value, self.x, lanes)
            with T.Else(), T.If(self.left > 0), T.Then(), tvm_ir.scratch((lanes,)) as tail:
                T.buffer_store(tail, value, [tvm_ir.ramp(0, 1, lanes)])
                with T.serial(0, self.left) as t:
                    store(tail[t], self.x + t, 1)
