"""One scheduling rule for every function that has no kernel of its own.

TVM's CPU pipeline leaves lowered operators as plain loops. This rule makes them parallel over
their outer loops and puts the loop over the last axis innermost, vectorised. It never changes
what is computed; what it cannot handle stays as it is.
"""

from __future__ import annotations

from typing import Any

from .._compat import (
    IS_SCHEDULED,
    ScheduleError,
    block_loops,
    child_blocks,
    loop_extent,
    schedule,
    tir,
)

# Below this many iterations threads cost more than they bring.
MIN_PARALLEL = 4096


def schedule_function(func: tir.PrimFunc, lanes: int) -> tir.PrimFunc:
    """``func`` with its blocks parallel and vectorised where that is possible.

    Args:
        func: a lowered operator, plain loops around blocks.
        lanes: float32 lanes of the target's vector registers.
    """
    sch = schedule(func)
    try:
        blocks = child_blocks(sch)
    except ScheduleError:
        return func
    _inline(sch, blocks)
    for block in child_blocks(sch):
        _schedule_block(sch, block, lanes)
    return sch.mod["main"].with_attr(IS_SCHEDULED, True)


def _inline(sch: Any, blocks: list[Any]) -> None:
    """Compute producers without reductions inside their consumers, if those have none either.

    Padding stays apart from the convolution or pooling that reads it: inside, its condition would
    keep the inner loop from being vectorised.
    """
    for block in blocks:
        consumers = sch.get_consumers(block)
        if not consumers or any(_reduces(sch, b) for b in (block, *consumers)):
            continue
        try:
            sch.compute_inline(block)
        except ScheduleError:
            continue


def _reduces(sch: Any, block: Any) -> bool:
    return any(v.iter_type == tir.IterVar.CommReduce for v in sch.get(block).iter_vars)


def _schedule_block(sch: Any, block: Any, lanes: int) -> None:
    loops = block_loops(sch, block)
    if loops is None or not loops[0]:
        return
    spatial, reduction = loops
    total = 1
    for loop in (*spatial, *reduction):
        total *= loop_extent(sch, loop)
    *outer, inner = spatial
    if reduction:
        sch.reorder(*outer, *reduction, inner)
    if loop_extent(sch, inner) % lanes == 0:
        _, vector = sch.split(inner, [None, lanes])
        sch.vectorize(vector)
    if not outer:
        return
    tasks = sch.fuse(*outer)
    if total >= MIN_PARALLEL:
        sch.parallel(tasks)
    if reduction:
        sch.decompose_reduction(block, reduction[0])
