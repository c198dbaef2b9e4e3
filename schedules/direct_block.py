"""One register block of the direct convolution: some output channels x vectors of output pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_direct import DirectLayout
from .epilogue import EpilogueOperands

# Taps x output channels up to which a channel is one straight piece of code. In longer ones, which
# keep a loop over the filter's rows, LLVM moves loads so far up that it runs out of registers.
UNROLLED = 64


@dataclass(frozen=True)
class Work:
    """What one task does with one block of input channels.

    Attributes:
        layout: memory layout.
        scratch: the panel's rows of these channels.
        partial: sums of the channels so far.
        values: packed weights.
        output: buffer [N, K, OH, OW].
        epilogue: what follows the convolution, with its buffers.
        image: image of the batch.
        block: block of output channels, counted through the groups.
        row: first output row of the panel.
        part: which block of input channels.
        channel, count: its first channel in the group, and how many.
    """

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


def emit_register_block(work: Work, vector: Any, width: int, index: Any) -> None:
    """Emit the products of slice ``index`` with ``width`` vectors of pixels from ``vector`` on.

    The sums start at zero or where the last block of input channels left them; after the last
    block they go through the epilogue into the output.
    """
    layout = work.layout
    rows, lanes = layout.rows_at_once, layout.lanes
    pixels = [_Pixels(work, vector + i) for i in range(width)]
    every = [(row, i) for row in range(rows) for i in range(width)]

    def at(row: int, i: int) -> Any:
        return tvm_ir.ramp((row * width + i) * lanes, 1, lanes)

    def waiting(row: int, i: int) -> Any:
        k = index * rows + row
        return tvm_ir.ramp(k * layout.sums_stride + (vector + i) * lanes, 1, lanes)

    with tvm_ir.local_buffer((rows * width * lanes,)) as sums:

        def start() -> None:
            for row, i in every:
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at(row, i)])

        def resume() -> None:
            for row, i in every:
                T.buffer_store(sums, work.partial[waiting(row, i)], [at(row, i)])

        def suspend() -> None:
            for row, i in every:
                T.buffer_store(work.partial, sums[at(row, i)], [waiting(row, i)])

        def finish() -> None:
            for i, p in enumerate(pixels):
                p.write([sums[at(row, i)] for row in range(rows)], index * rows)

        if layout.channel_blocks == 1:
            start()
            _emit_products(work, index, pixels, sums, at)
            finish()
        else:
            _either(work.part == 0, start, resume)
            _emit_products(work, index, pixels, sums, at)
            _either(work.part == layout.channel_blocks - 1, finish, suspend)


def _either(condition: Any, then: Any, otherwise: Any) -> None:
    with T.If(condition):
        with T.Then():
            then()
        with T.Else():
            otherwise()


def _emit_products(work: Work, index: Any, pixels: list[_Pixels], sums: Any, at: Any) -> None:
    """Every channel and tap."""
    layout, r = work.layout, work.layout.shape.r
    rows, lanes = layout.rows_at_once, layout.lanes
    start = tvm_ir.bind(layout.weights_offset(work.block, work.channel, work.count, index))

    def step(inputs: list[Any], weights: Any) -> None:
        xs = [tvm_ir.bind(work.scratch[tvm_ir.ramp(x, 1, lanes)]) for x in inputs]
        for row in range(rows):
            value = tvm_ir.bind(tvm_ir.broadcast(work.values[weights + row], lanes))
            for i, x in enumerate(xs):
                T.buffer_store(sums, sums[at(row, i)] + value * x, [at(row, i)])

    with T.serial(0, work.count) as c:
        inputs = [tvm_ir.bind(p.base + c * layout.channel_stride) for p in pixels]
        weights = tvm_ir.bind(start + c * (layout.taps * rows))
        if layout.taps * rows <= UNROLLED:
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

    def __init__(self, work: Work, vector: Any) -> None:
        layout = work.layout
        self.work, self.lanes = work, layout.lanes
        rows = tir.min(layout.rows, layout.oh - work.row)
        if layout.is_flat:
            # Rows of the panel are contiguous in the output: x runs on past the end of the first.
            self.base = tvm_ir.bind(vector * layout.lanes)
            self.y, self.x = work.row, self.base
            self.left = tvm_ir.bind(rows * layout.ow - self.x)
        else:
            y = tvm_ir.bind(vector // layout.row_vectors)
            self.x = tvm_ir.bind((vector - y * layout.row_vectors) * layout.lanes)
            self.base = tvm_ir.bind(y * layout.row_stride + self.x)
            self.y = tvm_ir.bind(work.row + y)
            self.left = tvm_ir.bind(tir.if_then_else(y < rows, layout.ow, 0) - self.x)

    def write(self, values: list[Any], index: Any) -> None:
        """Store the pixels of channels ``index`` and on, as far as they are in the output."""
        layout = self.work.layout
        checked = layout.per_group % layout.k_block or layout.k_block % layout.rows_at_once
        for row, value in enumerate(values):
            if checked:
                with T.If(index + row < self.work.k_count), T.Then():
                    self._write_row(value, tvm_ir.bind(self.work.k_first + index + row))
            else:
                self._write_row(value, tvm_ir.bind(self.work.k_first + index + row))

    def _write_row(self, value: Any, k: Any) -> None:
        work, lanes = self.work, self.lanes
        value = tvm_ir.bind(work.epilogue.add_bias(value, k, lanes))

        def store(value: Any, x: Any, width: int) -> None:
            where = [work.image, k, self.y, tvm_ir.ramp(x, 1, width)]
            T.buffer_store(work.output, work.epilogue.finish(value, where, k, width), where)

        with T.If(self.left >= lanes):
            with T.Then():
                store(value, self.x, lanes)
            with T.Else(), T.If(self.left > 0), T.Then(), tvm_ir.scratch((lanes,)) as tail:
                T.buffer_store(tail, value, [tvm_ir.ramp(0, 1, lanes)])
                with T.serial(0, self.left) as t:
                    store(tail[t], self.x + t, 1)
