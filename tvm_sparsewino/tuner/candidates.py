"""Which plans of a layer are worth measuring: the cost model's best, and their neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..config import ConvShape, LayerPlan
from ..cost import Core, Cost, ranked
from ..cost_quantities import CORES
from ..cost_sparse import ranked_sparse_direct
from ..geometry import ceil_div, make_panels, round_up
from ..geometry_sparse import choose_kind, thinned
from ..planner import Option, machine, on_machine, plan_of
from ..schedules.target import CpuTarget
from ..structure import shared_rows
from .measure import Problem

# Other algorithms and tiles that are measured first, if predicted to take at most so much longer.
_WORTH_A_TRY = 2.0
_STARTS = 4
# Of each algorithm's and tile's blockings: the best, and the best with another panel.
_PANELS = 2


def starts(
    problem: Problem, options: list[Option], target: CpuTarget, threads: int
) -> list[LayerPlan]:
    """The plans to begin with: the model's choice first, then those that may be as good.

    Args:
        problem: the layer.
        options: what the planner compares, best first.
        target: the CPU.
        threads: threads of a call.
    """
    core, least = machine(target, threads), options[0].cost.cycles
    near = [o for o in options[:_STARTS] if o.cost.cycles <= _WORTH_A_TRY * least]
    near = [on_machine(option, problem.shape, core) for option in near]
    plans = [plan_of("", problem.shape, option) for option in near]
    for option in [o for o in near if o.algorithm != "dense_direct"][:2]:
        costs = _ranked(option, problem.shape, core)
        best = {cost.blocking.panel_vectors: cost for cost in reversed(costs)}
        for cost in sorted(best.values(), key=lambda cost: cost.cycles)[:_PANELS]:
            plans.append(plan_of("", problem.shape, dataclasses.replace(option, cost=cost)))
    return list(dict.fromkeys(plans))


def _ranked(option: Option, shape: ConvShape, core: Core) -> tuple[Cost, ...]:
    """The costs of every blocking of one way to compute a layer, lowest first."""
    if option.m:
        kind = (option.algorithm, option.m, option.density, core, option.structure)
        return ranked(shape, *kind)
    return ranked_sparse_direct(shape, option.density, core)


def neighbours(plan: LayerPlan, target: CpuTarget, threads: int) -> list[LayerPlan]:
    """Plans one step from ``plan``, each another kernel that fits the target's registers."""
    moves = (*_MOVES, partial(_lanes, widest=target.lanes), partial(_copied, lanes=target.lanes))
    moves = (*moves, partial(_split, threads=threads)) if threads > 1 else moves
    found: dict[tuple, LayerPlan] = {_same_kernel(plan, target): plan}
    for steps in moves:
        for fields in steps(plan):
            near = dataclasses.replace(plan, **fields, flops_done=0, cost_cycles=0.0)
            if _fits(near, target):
                found.setdefault(_same_kernel(near, target), near)
    return list(found.values())[1:]


def _panel(plan: LayerPlan) -> Iterator[dict[str, int]]:
    """One vector more or fewer; direct panels are long, and go by halves."""
    if plan.m:
        sizes = [plan.panel_vectors + step for step in (-2, -1, 1, 2)]
    else:
        sizes = [plan.panel_vectors // 2, plan.panel_vectors * 3 // 4, plan.panel_vectors * 2]
    yield from ({"panel_vectors": size} for size in sizes if size >= 1)


def _rows(plan: LayerPlan) -> Iterator[dict[str, int]]:
    """Another number of rows at once, and with it as many accumulators, or about."""
    for rows in (1, 2, 3, 4, 6, 8):
        yield {"rows_at_once": rows}
        if plan.m and plan.algorithm == "sparse_winograd":
            vectors = max(1, plan.panel_vectors * plan.rows_at_once // rows)
            yield {"rows_at_once": rows, "panel_vectors": vectors}


def _k_block(plan: LayerPlan) -> Iterator[dict[str, int]]:
    """Half and twice as many blocks of output channels, or one more or fewer."""
    k = plan.conv.k
    blocks = ceil_div(k, min(plan.k_block or k, k))
    for count in (blocks // 2, blocks - 1, blocks + 1, blocks * 2):
        if 1 <= count <= ceil_div(k, 8):
            yield {"k_block": min(k, round_up(ceil_div(k, count), 8))}


def _channel_block(plan: LayerPlan) -> Iterator[dict[str, int]]:
    """Half or twice as many channels that lie together."""
    for size in (plan.channel_block // 2, plan.channel_block * 2):
        if 1 <= size <= max(plan.conv.c, plan.conv.k):
            yield {"channel_block": size}


def _split(plan: LayerPlan, threads: int) -> Iterator[dict[str, int]]:
    """Blocks of output channels in parallel, or panels, or panels and blocks of those left over."""
    if plan.m:
        yield {"split_k": not plan.split_k, "sharers": 0}
        if not plan.sharers:
            half = round_up(ceil_div(plan.conv.k, threads), 8)
            yield {"split_k": True, "sharers": threads, "k_block": min(plan.conv.k, half)}


def _lanes(plan: LayerPlan, widest: int) -> Iterator[dict[str, int]]:
    """Vectors of the other width, and as many of them as hold the same tiles, or about."""
    chooses = plan.m or plan.algorithm == "sparse_direct"
    for core in CORES[widest].widths() if chooses else ():
        if core.lanes != plan.lanes_on(widest):
            vectors = plan.panel_vectors * plan.lanes_on(widest) // core.lanes
            vectors = max(1, vectors) if plan.panel_vectors else 0
            lanes = core.lanes if core.lanes != widest else 0
            yield {"lanes": lanes, "panel_vectors": vectors}


def _copied(plan: LayerPlan, lanes: int) -> Iterator[dict[str, bool]]:
    """Pixels copied instead of read in place, or the other way round."""
    if plan.algorithm == "sparse_direct":
        lanes = plan.lanes_on(lanes)
        if choose_kind(thinned(plan.conv, lanes), lanes) == "map":
            yield {"copied": not plan.copied}


_MOVES: tuple[Callable[[LayerPlan], Iterator[dict[str, Any]]], ...] = (
    _panel,
    _rows,
    _k_block,
    _channel_block,
)


def _fits(plan: LayerPlan, target: CpuTarget) -> bool:
    """Whether the accumulators find room; kernels that compute panels in parts always fit."""
    if plan.algorithm != "sparse_winograd" or shared_rows(plan.structure) > 1:
        return plan.rows_at_once < target.vector_registers
    panels = make_panels(plan.conv, plan.m, plan.lanes_on(target.lanes), plan.panel_vectors)
    return panels.vectors * plan.rows_at_once <= target.vector_registers - 3


def _same_kernel(plan: LayerPlan, target: CpuTarget) -> tuple:
    """Equal for plans whose kernels are the same."""
    panel = plan.panel_vectors
    if plan.m:
        panels = make_panels(plan.conv, plan.m, plan.lanes_on(target.lanes), plan.panel_vectors)
        panel = (panels.tiles, panels.segment_tiles)
    sizes = plan.rows_at_once, plan.k_block, plan.channel_block
    how = plan.split_k, plan.sharers, plan.lanes_on(target.lanes), plan.copied
    return (panel, *sizes, *how)
