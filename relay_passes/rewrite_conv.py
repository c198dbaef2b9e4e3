"""Apply a plan: replace convolutions by operators with packed constants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tvm
from tvm import relax
from tvm.ir import IRModule

from .._compat import constant
from ..config import LayerPlan
from ..errors import in_context
from ..schedules.target import CpuTarget
from .bindings import Bindings, map_bindings, replaced
from .ops import packed_conv2d
from .packed_constant import packed_constant
from .patterns import ConvChain, find_convs
from .plans import as_cpu_target, plans_by_name
from .sites import ConvSite, EpilogueMatch, check_fits, check_pool, packed_arrays


@tvm.transform.module_pass(opt_level=0, name="SparsifyConvs")
class SparsifyConvs:
    """Replace every planned convolution, with what follows it, by one operator.

    ``conv -> [+ bias] -> [+ residual] -> [activation] -> [pool]`` becomes
    ``sparsewino.sparse_winograd_conv2d(x, packed..., [bias], [slope], [residual])``, or
    ``sparsewino.direct_conv2d`` or ``sparsewino.sparse_conv2d`` with the same operands where the
    plan says "dense_direct" or "sparse_direct".

    Checked: the plan fits the layer it names; a chain is taken only as far as nothing else uses
    what lies inside it, and a residual only when it has the output's shape. Convolutions that the
    plan leaves, or does not name, stay as they are. Run it before operators are lowered and fused.

    Args:
        plan: what :func:`tvm_sparsewino.relay_passes.plan` made for this module.
        target: as for ``plan``; the target in force, else the host, if None.

    Raises:
        ConfigError: the plan names a layer twice, or does not fit a layer's weights, shape or pool.
    """

    def __init__(self, plan: Iterable[LayerPlan], target: str | CpuTarget | Any = None) -> None:
        self.plans = plans_by_name(tuple(plan))
        self.target = target

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod``."""
        target = self.target or tvm.target.Target.current(allow_none=True) or "native"
        cpu = as_cpu_target(target)
        return map_bindings(mod, lambda bindings: _rewrite(bindings, self.plans, cpu))


def _rewrite(bindings: Bindings, plans: dict[str, LayerPlan], cpu: CpuTarget) -> relax.Function:
    values: dict[relax.Var, relax.Expr] = {}
    dropped: set[relax.Var] = set()
    claimed: set[relax.Var] = set()
    for site in find_convs(bindings):
        plan = plans.get(site.name)
        if not isinstance(plan, LayerPlan) or plan.algorithm == "left":
            continue
        with in_context(f"layer {site.name!r}"):
            check_fits(plan, site)
            match = ConvChain(site, bindings, claimed).match(plan.pool != "none")
            check_pool(plan, match.epilogue)
            values[match.tail] = _operator(plan, site, match, cpu)
        claimed |= {*match.inner, match.tail}
        dropped.update(match.inner)
    return replaced(bindings.func, values, dropped) if values else bindings.func


def _operator(plan: LayerPlan, site: ConvSite, match: EpilogueMatch, cpu: CpuTarget) -> relax.Call:
    operands = [constant(values) for values in match.vectors]
    if match.residual is not None:
        operands.append(match.residual)
    return packed_conv2d(
        site.call.args[0],
        [packed_constant(array) for array in packed_arrays(site, plan, cpu)],
        operands,
        plan=plan,
        epilogue=match.epilogue,
        lanes=plan.lanes_on(cpu.lanes),
        vector_registers=cpu.vector_registers,
    )
