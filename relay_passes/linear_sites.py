"""Linear layers found in a network, with planning and packing shared by Relax and Relay."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..config import Epilogue
from ..config_linear import LinearPlan, LinearShape
from ..errors import ConfigError
from ..geometry import INDEX_LIMIT
from ..packing_linear import pack_bias, pack_linear
from ..planner_linear import plan_linear, plan_linear_left
from ..schedules.linear_build import linear_layout
from ..schedules.target import CpuTarget


@dataclass(frozen=True, eq=False)
class LinearSite:
    """One linear layer in a function.

    Attributes:
        name: the layer's name, unique among the module's linear layers.
        call: the call of the product.
        var: the variable that holds its result, in Relax.
        leading: leading dimensions of the data.
        shape: its shape; None when no kernel can take it.
        weight: float32 [K, C].
        reason: why no kernel can take it; "" when one can.
    """

    name: str
    call: Any
    var: Any = None
    leading: tuple[int, ...] = ()
    shape: LinearShape | None = None
    weight: np.ndarray | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class LinearMatch:
    """What follows a linear layer and can run inside its kernel; see ``EpilogueMatch``."""

    tail: Any
    inner: tuple[Any, ...]
    epilogue: Epilogue
    bias: np.ndarray | None = None


def linear_site(site: LinearSite, data: tuple[int, ...], weight: np.ndarray) -> LinearSite:
    """The site of a product, complete or with the reason why no kernel takes it.

    Args:
        site: name, call and variable.
        data: the shape of its data.
        weight: its weights [C, K].
    """
    if min(*data, *weight.shape) < 1:
        return replace(site, reason="it has no elements")
    leading = data[:-1]
    shape = LinearShape(math.prod(leading), *weight.shape)
    if 2 * shape.n * max(weight.shape) >= INDEX_LIMIT:  # kernels round rows up to whole vectors
        return replace(site, reason="its tensors are too large for 32-bit indices")
    return replace(site, leading=leading, shape=shape, weight=np.ascontiguousarray(weight.T))


def linear_bias(value: np.ndarray | None, site: LinearSite) -> np.ndarray | None:
    """A constant that adds one float32 per output feature (or one for all), as [K]."""
    k = site.shape.k
    if value is None or value.dtype != np.float32 or value.ndim > len(site.leading) + 1:
        return None
    if value.size not in (1, k) or (value.size > 1 and value.shape[-1] != k):
        return None
    return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), (k,)))


def plan_linear_site(site: LinearSite, cpu: CpuTarget, threads: int) -> LinearPlan:
    """How a linear layer runs; one that no kernel takes is left, with the reason."""
    if site.reason:
        return plan_linear_left(site.name, site.reason)
    return plan_linear(site.name, site.shape, site.weight, cpu, threads)


def check_linear_fits(plan: LinearPlan, site: LinearSite) -> None:
    """Refuse a plan that was made for another layer or another shape.

    Raises:
        ConfigError: it was; says what differs.
    """
    if site.reason:
        raise ConfigError(f"the plan says {plan.algorithm}, but {site.reason}")
    if plan.linear != site.shape:
        raise ConfigError(f"the plan was made for {plan.linear}, the layer is {site.shape}")


def packed_linear_arrays(
    site: LinearSite, match: LinearMatch, plan: LinearPlan, cpu: CpuTarget
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Weights and bias, None without one, as the kernel of a layer's plan reads them."""
    layout = linear_layout(plan, cpu.lanes, cpu.vector_registers)
    bias = None if match.bias is None else pack_bias(match.bias, layout)
    return list(pack_linear(site.weight, layout)), bias
