"""Scheduling functions that have no kernel of their own."""

from __future__ import annotations

from functools import partial
from typing import Any

import tvm

from .line import IS_RELAX_LINE, BlockRealize, Schedule, ScheduleError, tir

# Simplifies index arithmetic; 0.27 calls its package by another name.
_Analyzer = (tvm.sym if hasattr(tvm, "sym") else tvm.arith).Analyzer


def _knowing(iterators: Any) -> Any:
    """An analyzer that knows how far the iterators of a block run."""
    analyzer = _Analyzer()
    for iterator in iterators:
        analyzer.bind(iterator.var, iterator.dom)
    return analyzer


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


def block_loops(sch: Schedule, block: Any, shared: int = 0) -> tuple[list[Any], list[Any]] | None:
    """The spatial and the reduction loops of a block below the ``shared`` outermost ones.

    Outermost first. None when the block is not alone in them, or a loop drives iterators of both
    kinds, or of others.
    """
    loops = sch.get_loops(block)
    realize = sch.get(loops[-1]).body if loops else None
    if not isinstance(realize, BlockRealize):
        return None
    kinds: dict[int, list[Any]] = {tir.IterVar.DataPar: [], tir.IterVar.CommReduce: []}
    pairs = list(zip(realize.block.iter_vars, realize.iter_values, strict=True))
    for loop in loops[shared:]:
        variable = sch.get(loop).loop_var
        driven = {
            iterator.iter_type
            for iterator, value in pairs
            if any(variable.same_as(used) for used in tir.analysis.undefined_vars(value))
        } or {tir.IterVar.DataPar}
        if len(driven) > 1 or not driven <= set(kinds):
            return None
        kinds[driven.pop()].append(loop)
    return kinds[tir.IterVar.DataPar], kinds[tir.IterVar.CommReduce]


def compute_inside(sch: Schedule, block: Any, loop: Any) -> bool:
    """Compute a block inside a loop of another one; False where TVM cannot, ``sch`` is void then.

    What a table of indices picks out has no bounds that TVM knows, which is an internal error.
    """
    try:
        sch.compute_at(block, loop)
    except (ScheduleError, tvm.error.InternalError):
        return False
    return True


def flat_loops(sch: Schedule, block: Any) -> int:
    """How many innermost loops of a block without reductions are one loop over contiguous numbers.

    Everything that the block reads or writes either runs through them in their order, whole, or
    does not depend on them.
    """
    realize = sch.get(sch.get_loops(block)[-1]).body
    variables = [iterator.var for iterator in realize.block.iter_vars]
    extents = [iterator.dom.extent for iterator in realize.block.iter_vars]
    regions = [*realize.block.reads, *realize.block.writes]
    analyzer = _knowing(realize.block.iter_vars)
    # Reshapes leave remainders and quotients behind that change nothing.
    indices = [[analyzer.simplify(i.min) for i in region.region] for region in regions]
    count = 0
    while count < len(variables):
        inner = variables[-count - 1 :], extents[-count - 1 :]
        if not all(map(partial(_runs_through, *inner), regions, indices)):
            break
        count += 1
    return count


def _runs_through(
    variables: list[Any], extents: list[Any], region: Any, indices: list[Any]
) -> bool:
    """Whether the last ``indices`` of a region are just ``variables``, or none depends on them."""
    shape = (region.source if hasattr(region, "source") else region.buffer).shape
    used = [v for index in indices for v in tir.analysis.undefined_vars(index)]
    if not any(v.same_as(variable) for v in used for variable in variables):
        return all(int(index.extent) == 1 for index in region.region)
    if len(indices) < len(variables):
        return False
    last = list(zip(indices, shape, strict=True))[-len(variables) :]
    return all(
        index.same_as(variable) and int(size) == int(extent)
        for (index, size), variable, extent in zip(last, variables, extents, strict=True)
    )


def crossing_loop(sch: Schedule, block: Any) -> int | None:
    """The number of a loop, not the innermost, along which something is read number by number that
    the innermost one crosses: a transposition. None where nothing is.

    Args:
        sch: the schedule.
        block: a block without reductions, each of whose loops drives one iterator, in their order.
    """
    block_of = sch.get(sch.get_loops(block)[-1]).body.block
    variables = [iterator.var for iterator in block_of.iter_vars]
    for region in block_of.reads:
        indices = [index.min for index in region.region]
        used = [v for index in indices for v in tir.analysis.undefined_vars(index)]
        if not any(v.same_as(variables[-1]) for v in used):
            continue
        for number, variable in enumerate(variables[:-1]):
            if indices[-1].same_as(variable):
                return number
    return None


def divisors_of(sch: Schedule, block: Any, loop: Any) -> set[int]:
    """Every number s for which the block reads at ``loop // s``."""
    variable, realize = sch.get(loop).loop_var, sch.get(sch.get_loops(block)[-1]).body
    analyzer, found = _knowing(realize.block.iter_vars), set()
    iterators = zip(realize.block.iter_vars, realize.iter_values, strict=True)
    values = {iterator.var: value for iterator, value in iterators}
    ours = [v for v, value in values.items() if variable.same_as(value)]

    def walk(expr: Any) -> None:
        divides = isinstance(expr, tir.FloorDiv) and isinstance(expr.b, tir.IntImm)
        if divides and any(expr.a.same_as(v) for v in ours):
            found.add(int(expr.b))
        for part in ("a", "b"):
            if hasattr(expr, part):
                walk(getattr(expr, part))

    for region in realize.block.reads:
        for index in region.region:
            walk(analyzer.simplify(index.min))
    return found


def loop_extent(sch: Schedule, loop: Any) -> int:
    """Iterations of a loop, 0 when they are not known."""
    extent = sch.get(loop).extent
    return int(extent) if isinstance(extent, tir.IntImm) else 0
