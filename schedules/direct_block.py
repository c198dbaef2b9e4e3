"""One register block of the direct convolution: some output channels x vectors of output pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import CACHE_LINE
from ..geometry_direct import DirectLayout
from .epilogue import EpilogueOperands
from .tails import emit_counted_tail, emit_tail

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

    Where one block of input channels is all, the sums go through the epilogue into the output.
    Else they are added to those of the blocks before, which wait in memory;
    :func:`emit_outputs` writes them in the end. To do so here, under a condition, makes LLVM spill
    in the loop over channels.
    """
    layout = work.layout
    rows, lanes = layout.rows_at_once, layout.lanes
    pixels = [_Pixels(work, vector, i) for i in range(width)]
    every = [(row, i) for row in range(rows) for i in range(width)]
    at = {p: tvm_ir.ramp(n * lanes, 1, lanes) for n, p in enumerate(every)}
    with tvm_ir.local_buffer((rows * width * lanes,)) as sums:
        if layout.channel_blocks == 1:
            _prefetch_added(work, index, pixels)
            for p in every:
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at[p]])
            _emit_products(work, index, pixels, sums, at)
            for i, pixel in enumerate(pixels):
                pixel.write([sums[at[row, i]] for row in range(rows)], index * rows)
            return
        start = tvm_ir.bind(layout.sums_offset(vector, width, index))
        waiting = {p: tvm_ir.ramp(start + n * lanes, 1, lanes) for n, p in enumerate(every)}
        for p in every:
            T.buffer_store(sums, work.partial[waiting[p]], [at[p]])
        _emit_products(work, index, pixels, sums, at)
        for p in every:
            T.buffer_store(work.partial, sums[at[p]], [waiting[p]])


def _prefetch_added(work: Work, index: Any, pixels: list[_Pixels]) -> None:
    """Ask for what is added to the block's outputs while its products are computed.

    Runs of a few vectors in channels that lie far apart: no CPU foresees them, and behind the last
    product nothing is left to do meanwhile.
    """
    if work.epilogue.residual is None:
        return
    every = max(CACHE_LINE // work.layout.lanes, 1)
    asked = [pixel for i, pixel in enumerate(pixels) if i % every == 0 or i == len(pixels) - 1]
    for row in range(work.layout.rows_at_once):
        k = tvm_ir.bind(work.k_first + index * work.layout.rows_at_once + row)
        for pixel in asked:
            tvm_ir.prefetch(work.epilogue.residual, (work.image, k, pixel.y, pixel.x))


def emit_outputs(work: Work, runs: list[tuple[int, int, int]]) -> None:
    """Emit the way of the waiting sums through the epilogue, one output channel after the other."""
    layout = work.layout
    rows, lanes = layout.rows_at_once, layout.lanes
    with T.serial(0, work.k_count) as k:
        channel = tvm_ir.bind(work.k_first + k)
        for first, tiles, width in runs:
            with T.serial(0, tiles) as tile:
                vector = tvm_ir.bind(first + tile * width)
                start = layout.sums_offset(vector, width, k // rows) + k % rows * (width * lanes)
                start = tvm_ir.bind(start)
                for i in range(width):
                    value = work.partial[tvm_ir.ramp(start + i * lanes, 1, lanes)]
                    _Pixels(work, vector, i).write_row(value, channel)


def _emit_products(work: Work, index: Any, pixels: list[_Pixels], sums: Any, at: Any) -> None:
    """Every channel and tap."""
    layout, shape = work.layout, work.layout.shape
    rows, lanes = layout.rows_at_once, layout.lanes
    stride = layout.channel_stride(len(pixels))
    start = tvm_ir.bind(layout.weights_offset(work.block, work.channel, work.count, index))

    def step(inputs: list[Any], weights: Any) -> None:
        xs = [tvm_ir.bind(work.scratch[tvm_ir.ramp(x, 1, lanes)]) for x in inputs]
        for row in range(rows):
            value = tvm_ir.bind(tvm_ir.broadcast(work.values[weights + row], lanes))
            for i, x in enumerate(xs):
                T.buffer_store(sums, sums[at[row, i]] + value * x, [at[row, i]])

    with T.serial(0, work.count) as c:
        inputs = [tvm_ir.bind(p.base + c * stride) for p in pixels]
        weights = tvm_ir.bind(start + c * (shape.taps * rows))
        if shape.taps * rows <= UNROLLED:
            for tap in range(shape.taps):
                offset = layout.tap_offset(*divmod(tap, shape.s))
                step([x + offset for x in inputs], weights + tap * rows)
            return
        with T.serial(0, shape.r) as i:
            for j in range(shape.s):
                offset = layout.tap_offset(i, j)
                step([x + offset for x in inputs], weights + (i * shape.s + j) * rows)


class _Pixels:
    """One vector of output pixels, number ``i`` of a tile: where it reads and where it writes."""

    def __init__(self, work: Work, tile: Any, i: int) -> None:
        layout, vector = work.layout, tile + i
        self.work, self.lanes = work, layout.lanes
        rows = tir.min(layout.rows, layout.shape.oh - work.row)
        if layout.is_flat:
            # Rows of the panel are contiguous in the output: x runs on past the end of the first.
            self.y, self.x = work.row, tvm_ir.bind(vector * layout.lanes)
            self.left = tvm_ir.bind(rows * layout.shape.ow - self.x)
            tiled = layout.kind == "tiled"
            start = tile * layout.vector_stride + i * layout.lanes
            self.base = tvm_ir.bind(start) if tiled else self.x
        else:
            y = tvm_ir.bind(vector // layout.row_vectors)
            self.x = tvm_ir.bind((vector - y * layout.row_vectors) * layout.lanes)
            self.base = tvm_ir.bind(y * layout.row_stride + self.x)
            self.y = tvm_ir.bind(work.row + y)
            self.left = tvm_ir.bind(tir.if_then_else(y < rows, layout.shape.ow, 0) - self.x)

    def write(self, values: list[Any], index: Any) -> None:
        """Store the pixels of channels ``index`` and on, as far as they are in the output."""
        layout = self.work.layout
        checked = layout.per_group % layout.k_block or layout.k_block % layout.rows_at_once
        for row, value in enumerate(values):
            if checked:
                with T.If(index + row < self.work.k_count), T.Then():
                    self.write_row(value, tvm_ir.bind(self.work.k_first + index + row))
            else:
                self.write_row(value, tvm_ir.bind(self.work.k_first + index + row))

    def write_row(self, value: Any, k: Any) -> None:
        """Store the pixels of output channel ``k``, as far as they are in the output."""
        work, lanes = self.work, self.lanes
        value = tvm_ir.bind(work.epilogue.add_bias(value, k, lanes))

        def store(part: Any, first: Any, width: int) -> None:
            where = [work.image, k, self.y, tvm_ir.ramp(self.x + first, 1, width)]
            T.buffer_store(work.output, work.epilogue.finish(part, where, k, width), where)

        tail = work.layout.tail
        if tail == 0:
            with T.If(self.left > 0), T.Then():
                store(value, 0, lanes)
            return
        with T.If(self.left >= lanes):
            with T.Then():
                store(value, 0, lanes)
            with T.Else(), T.If(self.left > 0), T.Then():
                if tail is None:
                    emit_counted_tail(value, lanes, self.left, store)
                else:
                    emit_tail(value, lanes, tail, store)
