"""Analytic cost of the sparse direct convolution, and its blocking. Pure.

What must happen is counted (:mod:`.cost_sparse_work`) and multiplied by prices, which were chosen
near the least squares over what ``benchmarks/kernels/direct.py`` measures.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

from .config import ConvShape, LayerPlan
from .cost import Cost
from .cost_quantities import Blocking, Core
from .cost_sparse_plans import compared_plans
from .cost_sparse_work import SparseWork, count_work, is_far
from .geometry import CACHE_LINE, check_shape
from .geometry_sparse import sparse_layout
from .pool_window import Window

PRICES = SparseWork(1.3, 1.1, 21.0, 4.0, 1.5, 1.3, 2.5, 7.0, 4.0, 220.0)


@lru_cache(maxsize=4096)
def predict_sparse_direct(shape: ConvShape, density: float, core: Core) -> Cost:
    """The cost of ``shape`` as a sparse direct convolution with the best blocking.

    Args:
        shape: the convolution.
        density: share of nonzero weights, 0 to 1.
        core: the machine.

    Raises:
        ShapeError: a shape that no kernel can take.
    """
    return ranked_sparse_direct(shape, density, core)[0]


@lru_cache(maxsize=1024)
def ranked_sparse_direct(
    shape: ConvShape, density: float, core: Core, window: Window | None = None
) -> tuple[Cost, ...]:
    """The costs of every blocking that the model knows, lowest first.

    Args:
        shape, density, core: as for :func:`predict_sparse_direct`.
        window: of the maximum that rows are pooled with, whose own cost is left out; None without.
    """
    check_shape(shape)
    costs = []
    flops = int(shape.direct_flops * density)
    for width in core.widths():
        lanes = width.lanes if width.lanes != core.lanes else 0
        for plan in compared_plans(shape, width, window):
            work = count_work(sparse_layout(plan, width.lanes), density, width)
            sizes = plan.panel_vectors, plan.k_block, plan.channel_block, plan.rows_at_once
            cycles = work.cycles(PRICES)
            cost = Cost(*cycles, flops, Blocking(*sizes), lanes=lanes, copied=plan.copied)
            costs.append(cost)
    return tuple(sorted(costs, key=lambda cost: cost.cycles))


def pooled_sparse_direct(plan: LayerPlan, window: Window, core: Core) -> tuple[float, Cost | None]:
    """Cycles of ``plan`` with a pool behind it, and the cost of what does both; None without any.

    What both take, the pool's operations, is left out.

    Args:
        plan: of a sparse direct kernel without a pool.
        window: of the maximum.
        core: the machine.
    """
    shape, lanes = plan.conv, plan.lanes_on(core.lanes)
    width = next(width for width in core.widths() if width.lanes == lanes)
    work = count_work(sparse_layout(plan, lanes), plan.density, width)
    apart = sum(work.cycles(PRICES))
    whole, part = shape.n * shape.k * shape.oh * shape.ow, shape.n * shape.k
    part *= prod(window.pooled(shape.oh, shape.ow))
    lines = is_far(whole, core) * whole + is_far(part, core) * part
    apart += PRICES.far_lines * lines / CACHE_LINE / core.threads
    return apart, next(iter(ranked_sparse_direct(shape, plan.density, core, window)), None)
