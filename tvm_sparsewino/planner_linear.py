"""Choose between the dense and the sparse kernel of one linear layer, and give the reason."""

from __future__ import annotations

import numpy as np

from .config_linear import LinearPlan, LinearShape
from .cost_linear import on_threads, predict_dense_linear, predict_sparse_linear, tasks
from .planner import weight_density
from .schedules.target import CpuTarget


def plan_linear(
    name: str, shape: LinearShape, weight: np.ndarray, target: CpuTarget, threads: int = 1
) -> LinearPlan:
    """Plan a linear layer; the sparse kernel runs only where there are zeros and it is predicted to
    be faster.

    Args:
        name: the layer's name.
        shape: its shape.
        weight: float32 [K, C].
        target: the CPU.
        threads: cores that work together; they change the predicted time, never the choice, so
            that results do not depend on them.
    """
    density = weight_density(weight)
    unit = target.lanes, target.vector_registers
    cycles = {
        "dense_linear": predict_dense_linear(shape, *unit),
        "sparse_linear": predict_sparse_linear(shape, density, *unit),
    }
    # Of a layer without zeros, a sparse kernel makes nothing but a detour.
    best, other = sorted(cycles, key=lambda name: (density == 1 and "sparse" in name, cycles[name]))
    reason = (
        f"{density:.0%} dense weights; {best.replace('_', ' ')} is predicted at "
        f"{cycles[best] / 1e6:.3g} Mcycles; {other.replace('_', ' ')} "
        f"{cycles[other] / cycles[best]:.2f}x"
    )
    share = density if best == "sparse_linear" else 1.0
    return LinearPlan(
        name=name,
        linear=shape,
        density=density,
        algorithm=best,
        reason=reason,
        flops_direct=shape.direct_flops,
        flops_done=int(shape.direct_flops * share),
        cost_cycles=on_threads(cycles[best], tasks(shape, best, *unit), threads),
    )


def plan_linear_left(name: str, reason: str) -> LinearPlan:
    """The plan of a linear layer that stays as it is, ``reason`` being why."""
    return LinearPlan(name, None, 1.0, "left", f"left as it is: {reason}")
