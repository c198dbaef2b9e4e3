"""Convolutions found in a network, with planning and packing shared by Relax and Relay.

How they are found, and what follows them, each line of TVM says in a ``patterns.py`` of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..config import CompileConfig, ConvShape, Epilogue, LayerPlan
from ..errors import ConfigError, ShapeError
from ..geometry import as_padding, check_shape, winograd_refusal
from ..packing import pack
from ..planner import kernel_weight, plan_left, plan_spatial, plan_winograd, with_pool
from ..pool_window import HALVING, Window, window_between
from ..records import Records
from ..schedules.target import CpuTarget
from .operators import winograd_algorithm


@dataclass(frozen=True, eq=False)
class ConvSite:
    """One convolution in a function.

    Attributes:
        name: the layer's name, unique in the module.
        call: the call of ``nn.conv2d`` or ``sparsewino.winograd_conv2d``.
        var: the variable that holds its result, in Relax.
        shape: its shape; None when a kernel cannot take it.
        weight: its weights, spatial [K, C/groups, r, s] or Winograd [alpha^2, K, C/groups].
        m: the tile that Winograd weights were made for; 0 for spatial weights.
        relu: whether its negative transformed inputs count as zero.
        reason: why no kernel can take it; "" when one can.
        pool, window: the pooling that its chain ends with, as in :class:`Epilogue`.
    """

    name: str
    call: Any
    var: Any = None
    shape: ConvShape | None = None
    weight: np.ndarray | None = None
    m: int = 0
    relu: bool = False
    reason: str = ""
    pool: str = "none"
    window: Window = HALVING


@dataclass(frozen=True, eq=False)
class EpilogueMatch:
    """What follows a convolution and can run inside its kernel.

    Attributes:
        tail: the variable in Relax, the expression in Relay, that holds the result of all of it.
        inner: those of the chain that nothing else uses, the convolution's among them.
        epilogue: the same as the kernel's options.
        bias, slope: float32 [K], or None.
        residual: the tensor that is added, or None.
    """

    tail: Any
    inner: tuple[Any, ...]
    epilogue: Epilogue
    bias: np.ndarray | None = None
    slope: np.ndarray | None = None
    residual: Any = None

    @property
    def vectors(self) -> list[np.ndarray]:
        """Bias and slope, those that there are, in the order of the kernel's operands."""
        return [values for values in (self.bias, self.slope) if values is not None]


# Activations that never fall, so that they may change places with a maximum.
RISING = ("relu", "relu6")


# ---- finding -----------------------------------------------------------------------------------


def unique_name(name: str, taken: set[str]) -> str:
    """``name``, or ``name:2`` and so on for a layer that the network calls again.

    It is added to ``taken``.
    """
    candidate, calls = name, 1
    while candidate in taken:
        calls += 1
        candidate = f"{name}:{calls}"
    taken.add(candidate)
    return candidate


def spatial_site(site: ConvSite, data: tuple[int, ...], weight: np.ndarray | None) -> ConvSite:
    """The site of an ``nn.conv2d``, complete or with the reason why no kernel takes it.

    Args:
        site: name, call and variable.
        data: the shape of its data.
        weight: its weights, None when they are not constant.
    """
    attrs = site.call.attrs
    layouts = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout or attrs.data_layout)
    if layouts != ("NCHW", "OIHW", "NCHW"):
        reason = f"its layout is {layouts[0]} with {layouts[1]} weights, not NCHW"
        return replace(site, reason=reason)
    if weight is None:
        return replace(site, reason="its weights are not constant")
    return _checked(replace(site, shape=_spatial_shape(attrs, data, weight), weight=weight))


def winograd_site(site: ConvSite, shape: ConvShape, weight: np.ndarray | None) -> ConvSite:
    """The site of a ``winograd_conv2d``, complete or with the reason why no kernel takes it.

    Args:
        site: name, call and variable.
        shape: its shape.
        weight: its coefficients, None when they are not constant.
    """
    attrs = site.call.attrs
    algorithm = winograd_algorithm(attrs)
    if weight is None:
        return replace(site, reason="its weights are not constant")
    if not algorithm.is_canonical:
        return replace(site, reason=f"its {algorithm} has points of its own")
    relu = bool(attrs["relu"])
    return _checked(replace(site, shape=shape, weight=weight, m=algorithm.m, relu=relu))


def _spatial_shape(attrs: Any, data: tuple[int, ...], weight: np.ndarray) -> ConvShape:
    padding, stride, dilation = (
        tuple(int(v) for v in values) for values in (attrs.padding, attrs.strides, attrs.dilation)
    )
    n, c, h, w = data
    k, _, r, s = weight.shape
    return ConvShape(n, c, h, w, k, r, as_padding(padding), int(attrs.groups), stride, dilation, s)


def _checked(site: ConvSite) -> ConvSite:
    """``site``, or the reason why no kernel takes its shape."""
    try:
        check_shape(site.shape)
        reason = winograd_refusal(site.shape) if site.m else ""
    except ShapeError as error:
        reason = str(error)
    return ConvSite(site.name, site.call, site.var, reason=reason) if reason else site


def pool_window(attrs: Any, shape: ConvShape, pooled: tuple[int, ...] | None) -> Window | None:
    """The windows of a pooling; None of one that is not NCHW, has holes, or reads only padding.

    Args:
        attrs: those of the pooling.
        shape: of the convolution before it.
        pooled: the shape of its result.
    """
    sizes = (attrs.pool_size, attrs.strides, attrs.dilation, attrs.padding)
    size, stride, dilation, padding = (tuple(int(n) for n in values) for values in sizes)
    layouts = (attrs.layout, attrs.out_layout or attrs.layout)
    if layouts != ("NCHW", "NCHW") or dilation != (1, 1) or pooled is None:
        return None
    (top, left, *_), size_of_map = as_padding(padding), (shape.oh, shape.ow)
    if top >= size[0] or left >= size[1]:
        return None
    window = window_between(size, stride, (top, left), size_of_map, pooled[2:])
    return window if pooled == (shape.n, shape.k, *window.pooled(*size_of_map)) else None


def per_channel(value: np.ndarray | None, channels: int, vector: bool = False) -> np.ndarray | None:
    """One float32 per output channel (or one for all) as [K], None if ``value`` is anything else.

    Args:
        value: a constant.
        channels: output channels.
        vector: whether it is given as [K], not as [1, K, 1, 1] or [K, 1, 1].
    """
    if value is None or value.dtype != np.float32 or value.size not in (1, channels):
        return None
    wanted = (channels,) if vector else (channels, 1, 1)
    if value.ndim > 4 or (value.size > 1 and value.shape[-len(wanted) :] != wanted):
        return None
    return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), (channels,)))


# ---- planning and applying plans ---------------------------------------------------------------


def plan_site(
    site: ConvSite,
    cpu: CpuTarget,
    config: CompileConfig,
    threads: int,
    records: Records | None,
) -> LayerPlan:
    """How a convolution runs; one that no kernel takes is left, with the reason."""
    if site.reason:
        return plan_left(site.name, site.reason)
    layer = (site.name, site.shape, site.weight)
    if site.m:
        plan = plan_winograd(*layer, site.m, cpu, config, threads, records, site.relu)
    else:
        plan = plan_spatial(*layer, cpu, config, threads, records)
    return with_pool(plan, site.pool, site.window, cpu, threads)


def check_fits(plan: LayerPlan, site: ConvSite) -> None:
    """Refuse a plan that was made for another layer or another shape.

    Raises:
        ConfigError: it was; says what differs.
    """
    if site.reason:
        raise ConfigError(f"the plan says {plan.algorithm}, but {site.reason}")
    if plan.conv != site.shape:
        raise ConfigError(f"the plan was made for {plan.conv}, the layer is {site.shape}")
    if plan.winograd_relu != site.relu:
        have, want = (("without", "with")[flag] for flag in (plan.winograd_relu, site.relu))
        raise ConfigError(
            f"the plan is one {have} a ReLU of transformed inputs, the layer one {want} it"
        )
    if site.m not in (0, plan.m):
        raise ConfigError(f"the plan says m = {plan.m}, the weights are made for m = {site.m}")


def check_pool(plan: LayerPlan, epilogue: Epilogue) -> None:
    """Refuse a plan with another pool than follows the layer.

    Raises:
        ConfigError: it has one; says which.
    """
    pools = ((plan.pool, plan.window), (epilogue.pool, epilogue.window))
    if pools[0] != pools[1]:
        have, want = (f"{pool!r}" + f" of {tuple(w)}" * (w != HALVING) for pool, w in pools)
        raise ConfigError(f"the plan's pool is {have}, the layer's {want}")


def packed_arrays(site: ConvSite, plan: LayerPlan, cpu: CpuTarget) -> tuple[np.ndarray, ...]:
    """The weights of a convolution as the kernel of its plan reads them."""
    weight = kernel_weight(site.weight, site.m, plan)
    return tuple(pack(weight, plan, plan.lanes_on(cpu.lanes)).arrays)
