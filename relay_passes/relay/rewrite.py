"""Plan a Relay module and apply the plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tvm
from tvm import relay
from tvm.ir import IRModule

from ...config import CompileConfig, LayerPlan
from ...errors import ConfigError, in_context
from ...planner import plan_left, weight_density
from ...records import Records
from ...schedules.target import CpuTarget
from ..plans import as_cpu_target, plans_by_name
from ..sites import ConvSite, EpilogueMatch, check_fits, check_pool, packed_arrays, plan_site
from .graph import Graph, is_graph, map_functions, rebuilt
from .ops import packed_conv2d
from .patterns import ConvChain, find_convs


def plan(
    mod: IRModule,
    target: str | CpuTarget | Any,
    config: CompileConfig | None = None,
    threads: int = 1,
    records: Records | None = None,
    min_sparsity: float = 0.0,
) -> tuple[LayerPlan, ...]:
    """Decide for every 2-D convolution of ``mod`` how it runs; ``mod`` stays as it is.

    The planner and its report are those of the Relax line.

    Args:
        mod: a module in Relay, as :func:`.preparing.prepare` returns it.
        target: "llvm -mcpu=...", "native", a CpuTarget or TVM's Target of kind llvm.
        config: options; the defaults if None.
        threads: cores that will work together.
        records: measurements, which are followed where they hold for a layer.
        min_sparsity: convolutions whose weights have a smaller share of zeros are left to TVM.

    Raises:
        ConfigError: ``min_sparsity`` is not in [0, 1].
        ShapeError: a convolution with a symbolic shape; names the layer.
        TargetError: an unknown target.
    """
    if not 0 <= min_sparsity <= 1:
        raise ConfigError(f"min_sparsity must be in [0, 1], got {min_sparsity!r}")
    options = (as_cpu_target(target), config or CompileConfig(), threads, records)
    graphs = [Graph(func) for func in mod.functions.values() if is_graph(func)]
    sites = [site for graph in graphs for site in find_convs(graph)]
    return tuple(_too_dense(site, min_sparsity) or plan_site(site, *options) for site in sites)


def _too_dense(site: ConvSite, min_sparsity: float) -> LayerPlan | None:
    """The plan that leaves a convolution with too few zeros; None for any other."""
    zeros = 1.0 if site.reason else 1 - weight_density(site.weight)
    if zeros >= min_sparsity:
        return None
    reason = f"{zeros:.0%} of its weights are zero, less than {min_sparsity:.0%}"
    return plan_left(site.name, reason, site.shape)


@tvm.transform.module_pass(opt_level=0, name="sparsewino.SparsifyConvs")
class SparsifyConvs:
    """Replace every planned convolution, with what follows it, by one operator.

    ``conv -> [+ bias] -> [+ residual] -> [activation] -> [pool]`` becomes
    ``sparsewino.sparse_winograd_conv2d(x, (packed..., [bias], [slope], [residual]))``, or
    ``sparsewino.direct_conv2d`` or ``sparsewino.sparse_conv2d`` where the plan says so.

    Checked: the plan fits the layer it names; a chain is taken only as far as nothing else uses
    what lies inside it, and a residual only when it has the output's shape. Convolutions that the
    plan leaves, or does not name, stay as they are.

    Args:
        plan: what :func:`plan` made for this module.
        target: as for ``plan``; the host if None.

    Raises:
        ConfigError: the plan names a layer twice, or does not fit a layer's weights, shape or pool.
    """

    def __init__(self, plan: Iterable[LayerPlan], target: str | CpuTarget | Any = None) -> None:
        self.plans = plans_by_name(tuple(plan))
        self.cpu = as_cpu_target(target or "native")

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod``."""
        return map_functions(mod, lambda func: _rewrite(func, self.plans, self.cpu))


def _rewrite(func: relay.Function, plans: dict[str, LayerPlan], cpu: CpuTarget) -> relay.Function:
    graph = Graph(func)
    replacements: dict[relay.Expr, Any] = {}
    claimed: set[relay.Expr] = set()
    for site in find_convs(graph):
        layer_plan = plans.get(site.name)
        if layer_plan is None or layer_plan.algorithm == "left":
            continue
        with in_context(f"layer {site.name!r}"):
            check_fits(layer_plan, site)
            match = ConvChain(site, graph, claimed).match(layer_plan.pool != "none")
            check_pool(layer_plan, match.epilogue)
            replacements[match.tail] = _operator(layer_plan, site, match, cpu)
        claimed |= {*match.inner, match.tail}
    return rebuilt(graph, replacements) if replacements else func


def _operator(plan: LayerPlan, site: ConvSite, match: EpilogueMatch, cpu: CpuTarget) -> Any:
    """The call that replaces a chain, made when what the chain reads is known."""
    constants = [relay.const(array) for array in packed_arrays(site, plan, cpu)]
    operands = [relay.const(values) for values in match.vectors]

    def new(changed: Any) -> relay.Call:
        residual = [] if match.residual is None else [changed(match.residual)]
        return packed_conv2d(
            changed(site.call.args[0]),
            constants,
            [*operands, *residual],
            plan=plan,
            epilogue=match.epilogue,
            lanes=plan.lanes_on(cpu.lanes),
            vector_registers=cpu.vector_registers,
        )

    return new
