"""How the planner would run given weights, and how it would run them otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import CompileConfig, ConvShape, LayerPlan
from ..planner import Option, machine, on_machine, plan_of, spatial_options, winograd_options
from ..schedules.target import CpuTarget


@dataclass(frozen=True)
class Planned:
    """A way to run weights, and whether it is what the planner would choose for them."""

    plan: LayerPlan
    chosen: bool


def winograd_plans(
    shape: ConvShape, u: np.ndarray, m: int, target: CpuTarget, threads: int
) -> dict[str, Planned]:
    """Plans of the sparse and the dense kernel for coefficients of F(m, 3), by algorithm."""
    plans: dict[str, Planned] = {}
    for option in winograd_options(shape, u, m, target):  # cheapest first
        if option.algorithm not in plans:
            chosen = not plans
            plans[option.algorithm] = Planned(_plan(option, shape, target, threads), chosen)
    return plans


def spatial_plans(
    shape: ConvShape, weight: np.ndarray, target: CpuTarget, threads: int
) -> tuple[LayerPlan, LayerPlan]:
    """The plan of the dense direct kernel for a filter, and what the planner would choose."""
    options = spatial_options(shape, weight, target, CompileConfig())
    direct = next(option for option in options if option.algorithm == "dense_direct")
    return _plan(direct, shape, target, threads), _plan(options[0], shape, target, threads)


def _plan(option: Option, shape: ConvShape, target: CpuTarget, threads: int) -> LayerPlan:
    """Algorithm and tile are chosen for one thread, the blocking for all of them."""
    return plan_of("layer", shape, on_machine(option, shape, machine(target, threads)))
