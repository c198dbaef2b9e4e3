"""Plan linear layers, and replace them by operators with packed constants."""

from __future__ import annotations

from collections.abc import Iterable

import tvm
from tvm import relax
from tvm.ir import IRModule

from .._compat import constant
from ..config_linear import AnyPlan, LinearPlan
from ..errors import in_context
from ..schedules.target import CpuTarget
from .bindings import Bindings, graphs, map_bindings, replaced
from .linear_ops import packed_linear
from .linear_patterns import find_linears, match_linear
from .linear_sites import (
    LinearMatch,
    LinearSite,
    check_linear_fits,
    packed_linear_arrays,
    plan_linear_site,
)
from .packed_constant import packed_constant
from .plans import plans_by_name


def plan_linears(mod: IRModule, cpu: CpuTarget, threads: int = 1) -> tuple[LinearPlan, ...]:
    """Decide for every linear layer of ``mod`` how it runs; those left have the reason.

    Args:
        mod: a module in Relax.
        cpu: the target.
        threads: cores that will work together.
    """
    sites = [site for bindings in graphs(mod).values() for site in find_linears(bindings)]
    return tuple(plan_linear_site(site, cpu, threads) for site in sites)


@tvm.transform.module_pass(opt_level=0, name="RewriteLinears")
class RewriteLinears:
    """Replace every planned linear layer, with what follows it, by one operator.

    ``matmul(x, constant) -> [+ bias] -> [activation]`` becomes
    ``sparsewino.linear(x, packed..., [bias])``; the constant may be a transposed one.

    Checked: the plan fits the layer; a chain is taken only as far as nothing else uses what lies
    inside it. Plans of convolutions among ``plan`` are not looked at, and layers that the plan
    leaves or does not name stay as they are.

    Args:
        plan: what :func:`plan_linears` made for this module.
        cpu: the target.

    Raises:
        ConfigError: the plan names a layer twice, or does not fit a layer.
    """

    def __init__(self, plan: Iterable[AnyPlan], cpu: CpuTarget) -> None:
        self.plans = plans_by_name(tuple(p for p in plan if isinstance(p, LinearPlan)))
        self.cpu = cpu

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod``."""
        return map_bindings(mod, lambda bindings: _rewrite(bindings, self.plans, self.cpu))


def _rewrite(bindings: Bindings, plans: dict[str, LinearPlan], cpu: CpuTarget) -> relax.Function:
    values: dict[relax.Var, relax.Expr] = {}
    dropped: set[relax.Var] = set()
    for site in find_linears(bindings):
        plan = plans.get(site.name)
        if plan is None or plan.algorithm == "left":
            continue
        with in_context(f"layer {site.name!r}"):
            check_linear_fits(plan, site)
            match = match_linear(site, bindings)
            values[match.tail] = _operator(plan, site, match, cpu)
        dropped.update(match.inner)
    return replaced(bindings.func, values, dropped) if values else bindings.func


def _operator(plan: LinearPlan, site: LinearSite, match: LinearMatch, cpu: CpuTarget) -> relax.Call:
    packed, bias = packed_linear_arrays(site, match, plan, cpu)
    return packed_linear(
        site.call.args[0],
        [packed_constant(array) for array in packed],
        None if bias is None else constant(bias),
        plan=plan,
        epilogue=match.epilogue,
        lanes=cpu.lanes,
        vector_registers=cpu.vector_registers,
    )
