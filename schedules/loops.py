"""The loops of one block: which are cut, fused, put innermost, made parallel or vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._compat import (
    ScheduleError,
    block_loops,
    crossing_loop,
    divisors_of,
    flat_loops,
    loop_extent,
)

# Below this many iterations threads cost more than they bring.
MIN_PARALLEL = 4096
# Iterations of reductions that are unrolled: windows of pooling.
UNROLLED = 9
# Numbers of a cache line; of the rows and columns of a transposition that stay in L1.
LINE, MOST_ROWS, ROWS = 16, 256, 64
# Fewer tasks than this are more than some machines' cores.
FEW_TASKS = 16


@dataclass(frozen=True)
class Pending:
    """A block whose loops are in order.

    Attributes:
        block: the block.
        reduction: its outermost reduction loop that is still to be taken apart; None without.
        outer: its own outer loops, those that hold no other block.
    """

    block: Any
    reduction: Any
    outer: tuple[Any, ...]


def all_loops(sch: Any, block: Any) -> list[Any]:
    """All loops around a block, outermost first."""
    return list(sch.get_loops(block))


def split_last(sch: Any, block: Any, size: int) -> bool:
    """Cut the innermost spatial loop into pieces of ``size``; False where that leaves a rest."""
    loops = block_loops(sch, block)
    if loops is None or not loops[0]:
        return False
    inner = loops[0][-1]
    extent = loop_extent(sch, inner)
    if extent <= size or extent % size:
        return False
    sch.split(inner, [None, size])
    return True


def share_out(sch: Any, outer: Sequence[Any]) -> None:
    """Run the outer loops as one parallel loop, if it is worth it."""
    if not outer:
        return
    try:
        tasks = sch.fuse(*outer)
    except ScheduleError:
        return
    if _iterations_below(sch, tasks) >= MIN_PARALLEL:
        sch.parallel(tasks)


def _iterations_below(sch: Any, loop: Any) -> int:
    blocks = sch.get_child_blocks(loop)
    return sum(
        math.prod(max(loop_extent(sch, around), 1) for around in all_loops(sch, block))
        for block in blocks
    )


def schedule_block(sch: Any, block: Any, lanes: int, shared: int = 0) -> Pending | None:
    """Order and vectorise the loops of ``block`` below the ``shared`` outermost ones.

    Returns:
        what is left to do when outer loops are parallel, see :func:`finish`; None for nothing.
    """
    loops = block_loops(sch, block, shared)
    if loops is None or not loops[0]:
        return None
    (*outer, inner), reduction = loops
    if not reduction and not shared:
        outer, inner = _flattened(sch, block, [*outer, inner], lanes)
        outer, inner = _transposed(sch, block, outer, inner)
    taps = math.prod(loop_extent(sch, loop) for loop in reduction)
    if reduction and 0 < taps <= UNROLLED:  # an unknown extent counts as 0
        # Sums stay in registers; LLVM makes vectors of the loop around, whatever its extent.
        sch.reorder(*outer, inner, *reduction)
        for loop in reduction:
            sch.unroll(loop)
        return Pending(block, reduction[0], tuple(outer))
    if reduction:
        sch.reorder(*outer, *reduction, inner)
    phases = divisors_of(sch, block, inner) if not reduction else set()
    extent = loop_extent(sch, inner)
    if len(phases) == 1 and extent and extent % min(phases) == 0:
        # Enlarged rows: LLVM reads whole vectors and interleaves what it stores.
        _, phase = sch.split(inner, [None, min(phases)])
        sch.unroll(phase)
    elif extent and extent % lanes == 0:
        rest, vector = sch.split(inner, [None, lanes])
        sch.vectorize(vector)
        if not reduction and _tasks(sch, outer) < FEW_TASKS:
            outer = [*outer, rest]
    initial = reduction[0] if reduction and (outer or shared) else None
    return Pending(block, initial, tuple(outer))


def _tasks(sch: Any, outer: Sequence[Any]) -> int:
    return math.prod(loop_extent(sch, loop) for loop in outer)


def _flattened(sch: Any, block: Any, loops: list[Any], lanes: int) -> tuple[list[Any], Any]:
    """Outer loops and an inner one, which is as long as enough tasks and whole vectors allow.

    Of rows that are not made of whole vectors, it takes as few as together are: with more of them,
    TVM no longer sees that a vector's places follow each other.
    """
    extents = [loop_extent(sch, loop) for loop in loops]
    flat = flat_loops(sch, block)
    if 0 in extents or flat < 2:
        return loops[:-1], loops[-1]
    if extents[-1] % lanes:
        flat = next((n for n in range(2, flat) if math.prod(extents[-n:]) % lanes == 0), flat)
    if math.prod(extents[-flat:]) % lanes:
        while math.prod(extents[:-flat]) < FEW_TASKS and flat > 1:
            flat -= 1
    first = len(loops) - flat
    return loops[:first], sch.fuse(*loops[first:])


def _transposed(sch: Any, block: Any, outer: list[Any], inner: Any) -> tuple[list[Any], Any]:
    """Outer loops and the innermost one of a transposition, a cache line's worth of the loop that
    it crosses put between: every line that is read is then used whole while it is in L1.
    """
    number = crossing_loop(sch, block) if outer else None
    if number is None or number >= len(outer) or loop_extent(sch, inner) < 2:
        return outer, inner
    extent = loop_extent(sch, outer[number])
    size = next((n for n in range(min(LINE, extent), 1, -1) if extent % n == 0), 1)
    if size == 1:
        return outer, inner
    around, line = sch.split(outer[number], [None, size])
    outer = [*outer[:number], around, *outer[number + 1 :]]
    rows = loop_extent(sch, inner)
    if rows > MOST_ROWS and rows % ROWS == 0:
        part, inner = sch.split(inner, [None, ROWS])
        outer.append(part)
    sch.reorder(*outer, line, inner)
    return outer, inner


def finish(sch: Any, pending: Pending) -> None:
    """Take the start of a reduction out of its loops, so that they hold nothing but the sums."""
    if pending.reduction is not None:
        sch.decompose_reduction(pending.block, pending.reduction)
