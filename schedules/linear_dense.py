"""Dense linear layer: register blocks of rows x output features, weights streamed in packed order.

Tasks (a block of output features for a group of rows) run in parallel and share nothing. With one
row every weight is used once: the kernel is then a stream through memory with enough sums to keep
up with it. With more rows than a register block holds, weights of a block of input features stay in
L1 while the rows pass; sums wait in a scratch for the next block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_linear import DenseLinearLayout
from .linear_epilogue import LinearEpilogue
from .wide import wide


def emit_dense_linear(
    data: Any, values: Any, output: Any, layout: DenseLinearLayout, epilogue: LinearEpilogue
) -> None:
    """Emit the whole layer.

    Args:
        data: buffer [n * c].
        values: packed weights, see :mod:`tvm_sparsewino.packing_linear`.
        output: buffer [n * k].
        layout: memory layout.
        epilogue: bias and activation, with their buffer.
    """
    n, rows = layout.shape.n, layout.rows
    waiting = layout.group_rows * layout.width if layout.c_blocks > 1 else layout.lanes
    with (
        T.parallel(0, layout.blocks * layout.groups) as task,
        tvm_ir.scratch((waiting,)) as partial,
    ):
        block = tvm_ir.bind(task // layout.groups)
        first = tvm_ir.bind(task % layout.groups * layout.group_rows)
        with T.serial(0, layout.c_blocks) as part:
            work = _Work(data, values, output, partial, layout, epilogue, block, first, part)
            with T.serial(0, layout.group_rows // rows) as tile:
                left = tvm_ir.bind(n - first - tile * rows)
                with T.If(left >= rows), T.Then():
                    _emit_block(work, tile * rows, rows)
                if n % rows:
                    with T.If(left == n % rows), T.Then():
                        _emit_block(work, tile * rows, n % rows)


@dataclass(frozen=True)
class _Work:
    """A task's buffers, its block of features, its first row, and the block of input features."""

    data: Any
    values: Any
    output: Any
    partial: Any
    layout: DenseLinearLayout
    epilogue: LinearEpilogue
    block: Any
    first: Any
    part: Any


def _emit_block(work: _Work, row: Any, rows: int) -> None:
    """Emit ``rows`` rows from ``row`` of the group on with all output features of the block."""
    layout, lanes = work.layout, work.layout.lanes
    every = [(i, v) for i in range(rows) for v in range(layout.vectors)]

    def at(i: int, v: int) -> Any:
        return tvm_ir.ramp((i * layout.vectors + v) * lanes, 1, lanes)

    def waiting(i: int, v: int) -> Any:
        return tvm_ir.ramp((row + i) * layout.width + v * lanes, 1, lanes)

    with tvm_ir.local_buffer((rows * layout.width,)) as sums:

        def start() -> None:
            for i, v in every:
                T.buffer_store(sums, tvm_ir.broadcast(0.0, lanes), [at(i, v)])

        def resume() -> None:
            for i, v in every:
                T.buffer_store(sums, work.partial[waiting(i, v)], [at(i, v)])

        def suspend() -> None:
            for i, v in every:
                T.buffer_store(work.partial, sums[at(i, v)], [waiting(i, v)])

        def finish() -> None:
            for i, v in every:
                k = tvm_ir.bind(work.block * layout.width + v * lanes)
                base = tvm_ir.bind((work.first + row + i) * layout.shape.k)
                work.epilogue.store(work.output, sums[at(i, v)], base, k, lanes, layout.shape.k)

        if layout.c_blocks == 1:
            start()
            _emit_products(work, row, rows, sums, at)
            finish()
        else:
            _either(work.part == 0, start, resume)
            _emit_products(work, row, rows, sums, at)
            _either(work.part == layout.c_blocks - 1, finish, suspend)


def _either(condition: Any, then: Any, otherwise: Any) -> None:
    with T.If(condition):
        with T.Then():
            then()
        with T.Else():
            otherwise()


def _emit_products(work: _Work, row: Any, rows: int, sums: Any, at: Any) -> None:
    """Every input feature of the block."""
    layout, lanes, c = work.layout, work.layout.lanes, work.layout.shape.c
    channel = tvm_ir.bind(work.part * layout.c_block)
    count = tvm_ir.bind(tir.min(layout.c_block, c - channel))
    weights = tvm_ir.bind(wide(work.block * c + channel) * layout.width)
    inputs = [tvm_ir.bind(wide((work.first + row + i) * c + channel)) for i in range(rows)]
    with T.serial(0, count) as step:
        loaded = []
        for v in range(layout.vectors):
            index = tvm_ir.ramp(weights + wide(step) * layout.width + v * lanes, 1, lanes)
            loaded.append(tvm_ir.bind(work.values[index]) if rows > 1 else work.values[index])
        for i, start in enumerate(inputs):
            x = tvm_ir.bind(tvm_ir.broadcast(work.data[start + wide(step)], lanes))
            for v, value in enumerate(loaded):
                T.buffer_store(sums, sums[at(i, v)] + x * value, [at(i, v)])
