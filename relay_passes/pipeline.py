"""The pipeline from a network in Relax to code: a flat list of numbered phases.

``relax.get_pipeline("sparsewino", config=..., plan=...)`` makes it; ``tvm.compile`` takes it, also
by its bare name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import tvm
from tvm import relax
from tvm.ir import IRModule

from .._compat import module_text
from ..config import CompileConfig, LayerPlan
from ..config_linear import AnyPlan
from .add_in_place import AddInPlace
from .concat_in_place import ConcatInPlace
from .fold_batch_norm import FoldBatchNorm
from .legalize_operators import operator_legalizers
from .plan_layers import as_cpu_target
from .plan_layers import plan as plan_layers
from .response_norm import JoinResponseNorms
from .rewrite_conv import SparsifyConvs
from .rewrite_linear import RewriteLinears
from .schedule_rest import ScheduleRest
from .split_transposed import SplitTransposed
from .to_nchw import ToNCHW


def sparsewino_pipeline(
    config: CompileConfig | None = None,
    plan: Iterable[AnyPlan] | None = None,
    dump_dir: str | os.PathLike[str] | None = None,
) -> tvm.transform.Pass:
    """The pipeline as one pass.

    Args:
        config: options of the planner; the defaults if None.
        plan: plans to apply; made in the pipeline if None.
        dump_dir: an existing folder that gets the module after every phase as numbered files.

    Raises:
        TargetError: there is no target in force or it is not of kind llvm (when the pass runs).
    """

    @tvm.transform.module_pass(opt_level=0, name="sparsewino_pipeline")
    def run(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        target = tvm.target.Target.current(allow_none=True) or as_cpu_target("native").tvm_target()
        _dump(mod, dump_dir, 0, "input")
        with target:
            for number, (name, phase) in enumerate(_phases(target, config, plan), start=1):
                mod = phase(mod)
                _dump(mod, dump_dir, number, name)
        return mod

    return run


def prepare() -> tvm.transform.Pass:
    """What happens before planning: plans are of the layers as they will run."""
    return tvm.transform.Sequential([ToNCHW(), FoldBatchNorm(), SplitTransposed()])


def _phases(
    target: tvm.target.Target,
    config: CompileConfig | None,
    plan: Iterable[AnyPlan] | None,
) -> Iterator[tuple[str, tvm.transform.Pass]]:
    """Name and pass of every phase, in order."""
    sequential, transform = tvm.transform.Sequential, relax.transform
    cpu = as_cpu_target(target)
    yield "prepare", prepare()
    yield "sparsify", _sparsify(cpu, config, plan)
    legalize = transform.LegalizeOps(operator_legalizers(cpu.lanes))
    yield (
        "legalize",
        sequential([JoinResponseNorms(cpu.lanes), transform.DecomposeOpsForInference(), legalize]),
    )
    yield (
        "fuse",
        sequential(
            [
                transform.AnnotateTIROpPattern(),
                transform.FoldConstant(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
            ]
        ),
    )
    yield "schedule_rest", ScheduleRest(cpu.lanes)
    yield (
        "lower",
        sequential(
            [
                transform.RewriteDataflowReshape(),
                transform.ToNonDataflow(),
                transform.RemovePurityChecking(),
                transform.CallTIRRewrite(),
                AddInPlace(),
                ConcatInPlace(),
                transform.StaticPlanBlockMemory(),
                transform.LowerAllocTensor(),
                transform.KillAfterLastUse(),
                transform.LowerRuntimeBuiltin(),
                transform.ComputePrimValue(),
                transform.VMShapeLower(),
                transform.AttachGlobalSymbol(),
            ]
        ),
    )


def _sparsify(
    cpu: object, config: CompileConfig | None, plan: Iterable[AnyPlan] | None
) -> tvm.transform.Pass:
    """Plan, when no plan was given, and apply: the plan needs the module of this phase."""

    @tvm.transform.module_pass(opt_level=0, name="PlanAndSparsify")
    def run(mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        chosen = plan_layers(mod, cpu, config) if plan is None else tuple(plan)
        convs = [p for p in chosen if isinstance(p, LayerPlan)]
        return RewriteLinears(chosen, cpu)(SparsifyConvs(convs, cpu)(mod))

    return run


def _dump(mod: IRModule, folder: str | os.PathLike[str] | None, number: int, name: str) -> None:
    if folder is not None:
        (Path(folder) / f"{number:02d}_{name}.py").write_text(module_text(mod))
