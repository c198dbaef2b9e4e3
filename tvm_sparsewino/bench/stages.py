"""The stages of the sparse kernel, each built alone, beside the floor no core can go below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..config import LayerPlan
from ..cook_toom import cook_toom
from ..cost_quantities import LOADS_PER_CYCLE, ONE_LOAD
from ..geometry import FLOAT_BYTES, kernel_layout
from ..packing import PackedWeights
from ..schedules.blocks import Blocks
from ..schedules.epilogue import EpilogueOperands
from ..schedules.fused import panel_scratch
from ..schedules.input_transform import emit_input_transform
from ..schedules.output_transform import emit_output_transform
from ..schedules.sparse_gemm import emit_sparse_gemm
from ..schedules.target import CpuTarget
from ..thread_pool import use_threads
from ..timing import median_alternating
from .kernels import EPILOGUE

STAGES = ("input", "gemm", "output")


def stage_report(
    plan: LayerPlan,
    packed: PackedWeights,
    operands: Sequence[Any],
    nonzeros: int,
    target: CpuTarget,
    peak: float,
    repeats: int,
) -> dict[str, dict[str, float]]:
    """Fastest time, work, bytes and share of the floor of every stage of one convolution.

    Args:
        plan: of an unstructured sparse kernel.
        packed: its weights.
        operands: what the whole kernel takes; its output is overwritten.
        nonzeros: nonzero coefficients.
        target: this machine.
        peak: measured multiply-add peak of a core in FLOP/s, which the floors are based on.
        repeats: timed calls of each.
    """
    use_threads(1)
    kernels = {stage: stage_kernel(stage, plan, packed, target) for stage in STAGES}
    calls = {stage: (lambda f=kernel: f(*operands)) for stage, kernel in kernels.items()}
    times = {stage: min(t) for stage, t in median_alternating(calls, repeats, 3).items()}
    floor = floors(plan, target, nonzeros, peak / (2 * target.vectors_per_cycle * target.lanes))
    work, moved = stage_flops(plan, target, nonzeros), stage_bytes(plan, packed, target)
    return {
        stage: {
            "ms": round(1e3 * times[stage], 5),
            "gflops": round(work[stage] / times[stage] / 1e9, 2),
            "bytes": moved[stage],
            "share_of_floor": round(floor[stage] / times[stage], 3),
        }
        for stage in STAGES
    }


def stage_kernel(stage: str, plan: LayerPlan, packed: PackedWeights, target: CpuTarget) -> Any:
    """The fused kernel with only one of its stages; same parameters, meaningless output."""
    layout, shape = kernel_layout(plan, plan.lanes_on(target.lanes)), plan.conv
    registers = target.vector_registers
    algorithm = cook_toom(plan.m, shape.r)
    with tvm_ir.prim_func(stage) as builder:
        data = tvm_ir.arg("data", (shape.n, shape.c, shape.h, shape.w), "float32")
        specs = zip(("starts", "rows", "offsets", "values"), packed.specs, strict=True)
        weights = [tvm_ir.arg(name, *spec) for name, spec in specs]
        bias = tvm_ir.arg("bias", (shape.k,), "float32")
        output = tvm_ir.arg("output", (shape.n, shape.k, shape.oh, shape.ow), "float32")
        operands = EpilogueOperands(EPILOGUE, bias)
        with (
            T.parallel(0, layout.panels.count) as panel,
            panel_scratch(layout) as (v, product),
        ):
            if stage == "input":
                emit_input_transform(data, v, shape, layout, algorithm, panel)
            with T.serial(0, layout.k_blocks) as block:
                if stage == "gemm":
                    emit_sparse_gemm(weights, v, product, Blocks(block), plan, layout, registers)
                elif stage == "output":
                    emit_output_transform(
                        product, output, Blocks(block), panel, shape, layout, algorithm, operands
                    )
    return tvm_ir.build_module(builder.get(), target.tvm_target())[stage]


def floors(
    plan: LayerPlan, target: CpuTarget, nonzeros: int, cycles_per_second: float
) -> dict[str, float]:
    """Seconds below which no stage can run on one core: the busiest of its three resources.

    Everything in L1; two multiply-adds, two vector loads and one vector store a cycle, half as many
    of registers that the CPU works on in halves.
    """
    layout, shape = kernel_layout(plan, plan.lanes_on(target.lanes)), plan.conv
    panels, algorithm = layout.panels, cook_toom(plan.m, plan.conv.r)
    alpha, m = algorithm.alpha, algorithm.m
    vectors = panels.vectors * panels.count
    steps = nonzeros * panels.vectors * panels.count
    together = plan.rows_at_once if plan.rows_at_once in ONE_LOAD else 1
    per_cycle = min(2.0, target.vectors_per_cycle * target.lanes / panels.lanes)
    full = 2 / per_cycle
    cycles = {
        # vertical pass on m input vectors per vector of tiles, horizontal pass on alpha rows
        "input": full
        * vectors
        * shape.c
        * max(
            (m + alpha) * _operations(algorithm.bt) / 2,
            m * alpha,
            m * alpha + alpha * alpha,
        ),
        # a load for every multiply-add, and for the values of rows that are computed together
        "gemm": steps * (1 / per_cycle + 1 / (LOADS_PER_CYCLE * together * panels.vectors)),
        "output": full
        * vectors
        * shape.k
        * max((alpha + m) * _operations(algorithm.at) / 2, alpha * alpha / 2, m * m),
    }
    return {stage: value / cycles_per_second for stage, value in cycles.items()}


def stage_flops(plan: LayerPlan, target: CpuTarget, nonzeros: int) -> dict[str, float]:
    """Real work: both transforms on whole tiles, and products with nonzeros of every panel."""
    layout, shape = kernel_layout(plan, plan.lanes_on(target.lanes)), plan.conv
    panels, algorithm = layout.panels, cook_toom(plan.m, plan.conv.r)
    tiles = shape.n * panels.tiles_y * panels.tiles_x
    alpha, m = algorithm.alpha, algorithm.m
    return {
        "input": 2.0 * tiles * shape.c * 2 * alpha * _operations(algorithm.bt),
        "gemm": 2.0 * nonzeros * panels.vectors * panels.lanes * panels.count,
        "output": 2.0 * tiles * shape.k * (alpha + m) * _operations(algorithm.at),
    }


def stage_bytes(plan: LayerPlan, packed: PackedWeights, target: CpuTarget) -> dict[str, int]:
    """Bytes that every stage reads and writes once: maps, scratch, weights once per panel."""
    layout = kernel_layout(plan, plan.lanes_on(target.lanes))
    shape, panels = plan.conv, layout.panels
    tile = panels.alpha**2 * panels.stride * panels.count * FLOAT_BYTES
    inputs = shape.n * shape.c * shape.h * shape.w * FLOAT_BYTES
    outputs = shape.n * shape.k * shape.oh * shape.ow * FLOAT_BYTES
    return {
        "input": inputs + tile * shape.c,
        "gemm": tile * (shape.c + shape.k) + packed.nbytes * panels.count,
        "output": tile * shape.k + outputs,
    }


def _operations(matrix: tuple) -> int:
    """Multiply-adds of one application of a transform, common parts shared."""
    nonzero = sum(1 for row in matrix for c in row if c)
    return nonzero - len(matrix)
