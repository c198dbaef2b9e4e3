"""Plan a module: one plan for every convolution and every linear layer in it."""

from __future__ import annotations

from typing import Any

from tvm.ir import IRModule

from ..config import CompileConfig
from ..config_linear import AnyPlan
from ..records import Records
from ..schedules.target import CpuTarget
from .bindings import graphs
from .patterns import find_convs
from .plans import as_cpu_target
from .rewrite_linear import plan_linears
from .sites import ConvSite, plan_site


def plan(
    mod: IRModule,
    target: str | CpuTarget | Any,
    config: CompileConfig | None = None,
    threads: int = 1,
    records: Records | None = None,
) -> tuple[AnyPlan, ...]:
    """Decide for every 2-D convolution and every linear layer of ``mod`` how it runs.

    Args:
        mod: a module in Relax, which stays as it is; parameters that are constants can be planned,
            others are left.
        target: "llvm -mcpu=...", "native", a CpuTarget or TVM's Target of kind llvm.
        config: options; the defaults if None.
        threads: cores that will work together.
        records: measurements, which are followed where they hold for a layer.

    Returns:
        one plan per convolution in program order, then one per linear layer; those that are left
        have the reason.

    Raises:
        ShapeError: a convolution with a symbolic shape; names the layer.
        TargetError: an unknown target.
    """
    cpu = as_cpu_target(target)
    options = (cpu, config or CompileConfig(), threads, records)
    convs = tuple(plan_site(site, *options) for site in conv_sites(mod))
    return convs + plan_linears(mod, cpu, threads)


def conv_sites(mod: IRModule) -> list[ConvSite]:
    """Every 2-D convolution of ``mod`` in program order.

    Raises:
        ShapeError: a convolution with a symbolic shape; names the layer.
    """
    return [site for bindings in graphs(mod).values() for site in find_convs(bindings)]
