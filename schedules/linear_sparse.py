"""Sparse linear layer: zero weights are skipped.

One row of data: lanes are ``slice_rows`` output features that are summed side by side. The input
of each lane is loaded alone and put into its place (a gather instruction takes longer); the data
stay in L1 block by block, and the weights stream past at 6 bytes per nonzero.

Several rows: lanes are rows. The data are transposed first, so that a nonzero is one broadcast and
one multiply-add with a memory operand per vector of rows, as in the sparse convolutions.

Tasks are blocks of output features; every sum is added up in one order by one task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_linear import SparseLinearLayout
from .linear_epilogue import LinearEpilogue
from .wide import wide


def emit_sparse_linear(
    data: Any,
    packed: Sequence[Any],
    output: Any,
    layout: SparseLinearLayout,
    epilogue: LinearEpilogue,
) -> None:
    """Emit the whole layer.

    Args:
        data: buffer [n * c].
        packed: buffers starts, rows, inputs, values (:mod:`tvm_sparsewino.packing_linear`).
        output: buffer [n * k].
        layout: memory layout.
        epilogue: bias and activation, with their buffer.
    """
    if layout.width * layout.parts == 1:
        _emit_tasks(data, packed, output, layout, epilogue)
        return
    with tvm_ir.scratch((layout.parts * layout.shape.c * layout.width,)) as columns:
        _emit_transpose(data, columns, layout)
        _emit_tasks(columns, packed, output, layout, epilogue)


def _emit_transpose(data: Any, columns: Any, layout: SparseLinearLayout) -> None:
    """Rows of data as lanes, [parts][C][width]; zeros where there are no rows."""
    n, c, width = layout.shape.n, layout.shape.c, layout.width
    chunk = 64  # input features of a task: whole cache lines of the data
    with T.parallel(0, -(-c // chunk)) as task, T.serial(0, layout.parts) as part:
        start = tvm_ir.bind(task * chunk)
        with T.serial(0, tir.min(chunk, c - start)) as i, T.serial(0, width) as row:
            at = (part * c + start + i) * width + row
            number = tvm_ir.bind(part * width + row)
            with T.If(number < n):
                with T.Then():
                    T.buffer_store(columns, data[number * c + start + i], [at])
                with T.Else():
                    T.buffer_store(columns, tvm_ir.broadcast(0.0, 1), [at])


def _emit_tasks(
    columns: Any,
    packed: Sequence[Any],
    output: Any,
    layout: SparseLinearLayout,
    epilogue: LinearEpilogue,
) -> None:
    size = (layout.k_block + 1) * layout.width
    with (
        T.parallel(0, layout.blocks) as block,
        T.serial(0, layout.parts) as part,
        tvm_ir.scratch((size,)) as sums,
    ):
        with T.serial(0, size) as i:
            T.buffer_store(sums, tvm_ir.broadcast(0.0, 1), [i])
        with T.serial(0, layout.c_blocks) as c_part:
            first = tvm_ir.bind(wide(part * layout.shape.c + c_part * layout.c_block))
            base = tvm_ir.bind(first * layout.width)
            with T.serial(0, layout.slices) as index:
                number = (block * layout.c_blocks + c_part) * layout.slices + index
                emit = _emit_lanes if layout.width == 1 else _emit_slice
                emit(columns, base, packed, tvm_ir.bind(number), sums, layout)
        _emit_output(sums, output, block, part, layout, epilogue)


def _emit_slice(
    columns: Any, base: Any, packed: Sequence[Any], number: Any, sums: Any, layout: Any
) -> None:
    """Add the products of one slice to the sums."""
    starts, rows, inputs, values = packed
    lanes, vectors, width = layout.lanes, layout.vectors, layout.slice_rows

    def at(row: int, i: int) -> Any:
        return tvm_ir.ramp((row * vectors + i) * lanes, 1, lanes)

    start = tvm_ir.bind(wide(starts[number]))
    steps = wide(starts[number + 1]) - start
    places = [tvm_ir.bind(wide(rows[number * width + row]) * layout.width) for row in range(width)]
    with tvm_ir.local_buffer((width * layout.width,)) as held:
        for row, place in enumerate(places):
            for i in range(vectors):
                value = sums[tvm_ir.ramp(place + i * lanes, 1, lanes)]
                T.buffer_store(held, value, [at(row, i)])
        with T.serial(0, steps) as step:
            first = tvm_ir.bind((start + step) * width)
            for row in range(width):
                where = tvm_ir.bind(base + wide(inputs[first + row]) * layout.width)
                value = tvm_ir.bind(tvm_ir.broadcast(values[first + row], lanes))
                for i in range(vectors):
                    x = columns[tvm_ir.ramp(where + i * lanes, 1, lanes)]
                    T.buffer_store(held, held[at(row, i)] + value * x, [at(row, i)])
        for row, place in enumerate(places):
            for i in range(vectors):
                target = tvm_ir.ramp(place + i * lanes, 1, lanes)
                T.buffer_store(sums, held[at(row, i)], [target])


def _emit_lanes(
    data: Any, base: Any, packed: Sequence[Any], number: Any, sums: Any, layout: Any
) -> None:
    """The same for one row of data: the sums of a slice are the lanes of one vector."""
    starts, rows, inputs, values = packed
    width = layout.slice_rows
    start = tvm_ir.bind(wide(starts[number]))
    steps = wide(starts[number + 1]) - start
    places = [tvm_ir.bind(rows[number * width + row]) for row in range(width)]
    everything = tvm_ir.ramp(0, 1, width)
    with tvm_ir.local_buffer((width,)) as held:
        for row, place in enumerate(places):
            T.buffer_store(held, sums[place], [row])
        with T.serial(0, steps) as step:
            first = tvm_ir.bind((start + step) * width)
            numbers = [data[base + wide(inputs[first + row])] for row in range(width)]
            x = tvm_ir.shuffle(numbers, range(width))
            product = values[tvm_ir.ramp(first, 1, width)] * x
            T.buffer_store(held, held[everything] + product, [everything])
        for row, place in enumerate(places):
            T.buffer_store(sums, held[row], [place])


def _emit_output(
    sums: Any, output: Any, block: Any, part: Any, layout: Any, epilogue: LinearEpilogue
) -> None:
    """Bias, activation, and back to rows of output features."""
    n, k = layout.shape.n, layout.shape.k
    first = tvm_ir.bind(block * layout.k_block)
    row_count = tir.min(layout.width, n - part * layout.width)
    with T.serial(0, row_count) as row:
        base = tvm_ir.bind((part * layout.width + row) * k + first)
        with T.serial(0, tir.min(layout.k_block, k - first)) as i:
            value = epilogue.apply(sums[i * layout.width + row], first + i, 1)
            T.buffer_store(output, value, [base + i])
