"""Plan a module: one :class:`LayerPlan` for every convolution in it."""

from __future__ import annotations

from typing import Any

from tvm.ir import IRModule

from ..config import CompileConfig, LayerPlan
from ..errors import ConfigError
from ..planner import plan_left, plan_spatial, plan_winograd
from ..records import Records
from ..schedules.target import CpuTarget, from_tvm_target, parse_target
from .bindings import Bindings, is_graph
from .patterns import ConvSite, find_convs


def plan(
    mod: IRModule,
    target: str | CpuTarget | Any,
    config: CompileConfig | None = None,
    threads: int = 1,
    records: Records | None = None,
) -> tuple[LayerPlan, ...]:
    """Decide for every 2-D convolution of ``mod`` how it runs; ``mod`` stays as it is.

    Args:
        mod: a module in Relax; parameters that are constants can be planned, others are left.
        target: "llvm -mcpu=...", "native", a CpuTarget or TVM's Target of kind llvm.
        config: options; the defaults if None.
        threads: cores that will work together.
        records: measurements, which are followed where they hold for a layer.

    Returns:
        one plan per convolution in program order, those that are left with the reason.

    Raises:
        ShapeError: a convolution with a symbolic shape; names the layer.
        TargetError: an unknown target.
    """
    options = (as_cpu_target(target), config or CompileConfig(), threads, records)
    return tuple(_plan_site(site, *options) for site in conv_sites(mod))


def conv_sites(mod: IRModule) -> list[ConvSite]:
    """Every 2-D convolution of ``mod`` in program order.

    Raises:
        ShapeError: a convolution with a symbolic shape; names the layer.
    """
    graphs = [func for func in mod.functions.values() if is_graph(func)]
    return [site for func in graphs for site in find_convs(Bindings(func))]


def as_cpu_target(target: str | CpuTarget | Any) -> CpuTarget:
    """A target in any of its forms as :class:`CpuTarget`.

    Raises:
        TargetError: an unknown target.
    """
    if isinstance(target, CpuTarget):
        return target
    return parse_target(target) if isinstance(target, str) else from_tvm_target(target)


def plans_by_name(plans: tuple[LayerPlan, ...]) -> dict[str, LayerPlan]:
    """The plans under their layers' names.

    Raises:
        ConfigError: two plans for one layer.
    """
    by_name = {p.name: p for p in plans}
    if len(by_name) != len(plans):
        raise ConfigError("the plan names a layer twice")
    return by_name


def _plan_site(
    site: ConvSite,
    cpu: CpuTarget,
    config: CompileConfig,
    threads: int,
    records: Records | None,
) -> LayerPlan:
    if site.reason:
        return plan_left(site.name, site.reason)
    name, shape, weight = site.name, site.shape, site.weight
    if site.m:
        return plan_winograd(name, shape, weight, site.m, cpu, config, threads, records)
    return plan_spatial(name, shape, weight, cpu, config, threads, records)
