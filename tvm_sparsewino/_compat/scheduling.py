"""Scheduling functions that have no kernel of their own."""

from __future__ import annotations

from typing import Any

import tvm

from .line import IS_RELAX_LINE, BlockRealize, Schedule, tir


def schedule(func: tir.PrimFunc) -> Schedule:
    """A schedule of one PrimFunc, which is called "main" in it."""
    return Schedule(tvm.IRModule({"main": func}))


def child_blocks(sch: Schedule) -> list[Any]:
    """The blocks of a scheduled function in program order.

    Raises:
        ScheduleError: the function is not made of blocks.
    """
    find = sch.get_sblock if IS_RELAX_LINE else sch.get_block
    return list(sch.get_child_blocks(find("root")))


def block_loops(sch: Schedule, block: Any) -> tuple[list[Any], list[Any]] | None:
    """The spatial and the reduction loops of a block, outermost first.

    None when the block is not alone in its loops, or when the loops are not one per iterator of
    the block, each iterator being just its loop's variable.
    """
    loops = sch.get_loops(block)
    realize = sch.get(loops[-1]).body if loops else None
    if not isinstance(realize, BlockRealize) or len(realize.iter_values) != len(loops):
        return None
    by_variable = {sch.get(loop).loop_var: loop for loop in loops}
    kinds: dict[int, list[Any]] = {tir.IterVar.DataPar: [], tir.IterVar.CommReduce: []}
    for iterator, value in zip(realize.block.iter_vars, realize.iter_values, strict=True):
        loop = by_variable.pop(value, None) if isinstance(value, tir.Var) else None
        if loop is None or iterator.iter_type not in kinds:
            return None
        kinds[iterator.iter_type].append(loop)
    return kinds[tir.IterVar.DataPar], kinds[tir.IterVar.CommReduce]


def loop_extent(sch: Schedule, loop: Any) -> int:
    """Iterations of a loop, 0 when they are not known."""
    extent = sch.get(loop).extent
    return int(extent) if isinstance(extent, tir.IntImm) else 0
