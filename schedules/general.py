"""Scheduling rules for every function that has no kernel of its own.

TVM's CPU pipeline leaves lowered operators as plain loops. What happens to them here:

1. Steps that only map numbers are computed inside those that read them.
2. Steps that remain (windows, sums, their borders) are computed inside the outer loops of the last
   one, as far out as what passes between them stays in L1 and there are tasks enough: in long
   steps, nothing is read right after it was written.
3. Outer loops run in parallel; see :mod:`.loops` for the inner ones.

Nothing here changes what is computed; what cannot be handled stays as it is.
"""

from __future__ import annotations

import math
from typing import Any

from .._compat import (
    IS_SCHEDULED,
    ScheduleError,
    block_loops,
    child_blocks,
    compute_inside,
    loop_extent,
    schedule,
    tir,
)
from .loops import all_loops, finish, schedule_block, share_out, split_last

# Tasks that are enough for threads to share, and numbers of a task's steps that pass between them.
ENOUGH_TASKS = 16
STEP_NUMBERS = 4096
# How much more may be computed because steps of neighbouring tasks overlap.
OVERLAP = 1.2
# Numbers of the last step that a task computes when its innermost loop is cut.
CUT = 16


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
    blocks = child_blocks(sch)
    joined = _joined(sch) if len(blocks) > 1 else None
    if joined is not None:
        sch, depth = joined
        blocks = child_blocks(sch)
        outer = all_loops(sch, blocks[-1])[:depth]
        pending = [schedule_block(sch, block, lanes, depth) for block in blocks]
        share_out(sch, outer)
    else:
        pending = [schedule_block(sch, block, lanes) for block in blocks]
        for done in pending:
            if done is not None:
                share_out(sch, done.outer)
    for done in pending:
        if done is not None:
            finish(sch, done)
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


def _joined(sch: Any) -> tuple[Any, int] | None:
    """A schedule with all steps inside the last one's outer loops, and how many of those there are.

    None where the steps share no loops.
    """
    *_, last = child_blocks(sch)
    loops = block_loops(sch, last)
    if loops is None:
        return None
    work, found, most = _work(sch), None, len(loops[0])
    for depth in range(1, most):
        deeper = _moved(sch, depth, work, cut=False)
        found = deeper or found
        if deeper is not None and math.prod(_extents(*deeper)) >= ENOUGH_TASKS:
            return deeper
    cut = _moved(sch, most, work, cut=True)
    return found if cut is None else cut


def _extents(sch: Any, depth: int) -> list[int]:
    *_, last = child_blocks(sch)
    return [loop_extent(sch, loop) for loop in all_loops(sch, last)[:depth]]


def _moved(original: Any, depth: int, work: int, cut: bool) -> tuple[Any, int] | None:
    """A copy with all steps inside ``depth`` loops of the last one; None if that is not possible,
    computes much twice, or leaves too much between the steps.
    """
    sch = original.copy()
    *steps, last = child_blocks(sch)
    if cut and not split_last(sch, last, CUT):
        return None
    for block in reversed(steps):
        if not compute_inside(sch, block, all_loops(sch, last)[depth - 1]):
            return None
    tasks = math.prod(_extents(sch, depth))
    if not tasks or _work(sch) > OVERLAP * work or _work(sch) > tasks * STEP_NUMBERS * len(steps):
        return None
    return sch, depth


def _work(sch: Any) -> int:
    """Iterations of all blocks."""
    return sum(
        math.prod(loop_extent(sch, loop) for loop in all_loops(sch, block))
        for block in child_blocks(sch)
    )
