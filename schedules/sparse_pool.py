"""Maximum pool behind the sparse direct convolution, from rows that stay in L2.

A task computes the panels of an image and block of output channels one after the other, into rows
that belong to it (:class:`..geometry_pooling.PooledRows`). Behind each panel it pools what windows
end there, and moves the rows that the next panel's windows read as well to the front: nothing is
computed twice, and the map before the pool is never written. Rows beyond the map are -infinity.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_sparse import SparseLayout
from .epilogue import EpilogueOperands
from .pool_rows import PoolRow
from .pooling import Pool
from .wide import wide

LOWEST = float("-inf")


def emit_above(staged: Any, layout: SparseLayout) -> None:
    """Emit what the first panel finds in the place of the rows before it.

    Args:
        staged: buffer [k_block * slots * OW].
        layout: memory layout.
    """
    kept = layout.pooled.kept
    if kept:
        with T.serial(0, layout.k_block) as member:
            _emit_lowest(staged, layout, _first(layout, member), range(kept))


def emit_pool(
    staged: Any,
    output: Any,
    layout: SparseLayout,
    epilogue: EpilogueOperands,
    task: tuple[Any, Any],
    panel: Any,
) -> None:
    """Emit the windows that end in a panel, and keep its last rows.

    Args:
        staged: buffer [k_block * slots * OW], the panel's rows behind those that were kept.
        output: buffer [N, K, rows, columns] of the pooled map.
        layout: memory layout.
        epilogue: what follows the maximum.
        task: image, and block of output channels counted through the groups.
        panel: the panel's index.
    """
    rows, (image, block), k_block = layout.pooled, task, layout.k_block
    part = tvm_ir.bind(block % layout.k_blocks * k_block)
    count = tvm_ir.bind(tir.min(layout.per_group - part, k_block))
    first_output = tvm_ir.bind(block // layout.k_blocks * layout.per_group + part)
    step, is_last = rows.rows // rows.window.down, panel == layout.panels - 1
    ahead = tvm_ir.bind(panel * step - rows.lag)  # of no window where it is negative
    begin = tvm_ir.bind(tir.max(ahead, 0))
    end = tvm_ir.bind(tir.Select(is_last, rows.out, tir.max(ahead + step, 0)))
    row = _row_pool(staged, layout, output)
    with T.serial(0, count) as member:
        k, base = tvm_ir.bind(first_output + member), _first(layout, member)
        if rows.beyond:
            with T.If(is_last), T.Then():
                _emit_lowest(staged, layout, base, rows.beyond)
        with T.serial(0, end - begin) as number:
            y = tvm_ir.bind(begin + number)
            top = tvm_ir.bind(base + wide((y - ahead) * rows.window.down) * layout.shape.ow)
            starts = [tvm_ir.bind(top + tap * layout.shape.ow) for tap in range(rows.window.rows)]
            for x, value in row.pieces(starts, rows.window.rows):
                place = [image, k, y, tvm_ir.ramp(x, 1, row.lanes)]
                T.buffer_store(output, epilogue.activate(value, k, row.lanes), place)
        if rows.kept:
            with T.If(tir.Not(is_last)), T.Then():
                _emit_move(staged, layout, base)


def _row_pool(staged: Any, layout: SparseLayout, output: Any) -> PoolRow:
    window, size = layout.window, (int(output.shape[2]), int(output.shape[3]))
    taps, steps = (window.rows, window.columns), (window.down, window.across)
    lowest = tir.const(LOWEST, "float32")
    pool = Pool(taps, steps, (1, 1), window.padding, size)
    return PoolRow("max", pool, layout.shape.ow, layout.lanes, staged, [lowest])


def _first(layout: SparseLayout, member: Any) -> Any:
    """Where the rows of an output channel begin."""
    return tvm_ir.bind(wide(member) * (layout.pooled.slots * layout.shape.ow))


def _emit_lowest(staged: Any, layout: SparseLayout, base: Any, slots: Iterable[int]) -> None:
    width = layout.shape.ow
    for slot in slots:
        for x, lanes in _pieces(width, layout.lanes):
            place = tvm_ir.ramp(base + slot * width + x, 1, lanes)
            T.buffer_store(staged, tvm_ir.broadcast(LOWEST, lanes), [place])


def _emit_move(staged: Any, layout: SparseLayout, base: Any) -> None:
    """The panel's last rows to the front, in order: they may overlap."""
    width, rows = layout.shape.ow, layout.pooled
    for slot in range(rows.kept):
        for x, lanes in _pieces(width, layout.lanes):
            at = base + slot * width + x
            value = staged[tvm_ir.ramp(at + rows.rows * width, 1, lanes)]
            T.buffer_store(staged, value, [tvm_ir.ramp(at, 1, lanes)])


def _pieces(width: int, lanes: int) -> Iterable[tuple[int, int]]:
    """Vectors that cover a row; the last overlaps the one before."""
    while lanes > width:
        lanes //= 2
    return [(min(x, width - lanes), lanes) for x in range(0, width, lanes)]
