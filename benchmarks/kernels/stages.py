"""Where the time of the fused kernel goes: every stage alone, beside its floor.

    python benchmarks/kernels/stages.py --out benchmarks/results/kernel_stages.json

For each layer the whole kernel is checked against the float64 reference, then the kernel and its
three stages (each built alone) run alternately. Reported: the fastest and the median time, real
(nonzero) GFLOP/s of the GEMM, cycles per channel and vector of the transforms, effective GFLOP/s,
and each stage's share of its floor. Floors are bounds of one core with everything in L1: two
multiply-adds, two vector loads and one vector store a cycle (half as many of registers that the CPU
works on in halves). One thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino.bench.machine import fma_peak, machine, versions
from tvm_sparsewino.bench.stages import STAGES, floors, stage_kernel
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.cost import predict
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.packing import pack
from tvm_sparsewino.planner import machine as core_of
from tvm_sparsewino.reference import winograd_conv2d
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.target import CpuTarget, parse_target
from tvm_sparsewino.thread_pool import use_threads
from tvm_sparsewino.timing import median_alternating

SAME = (1, 1, 1, 1)
# (channels, height, width, m): the inner layer of FFDNet at 640x424 and ResNet-18's stages.
LAYERS = [(96, 212, 320, 4), (64, 56, 56, 4), (128, 28, 28, 4), (256, 14, 14, 4), (512, 7, 7, 2)]
EPILOGUE = Epilogue(bias=True, activation="relu")
SEED = 0
TOLERANCE = 2e-5  # max error over max |output|, F(4,3) up to 512 channels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_threads(1)
    target = parse_target("native")
    peak = fma_peak(target)
    print(f"{target.text}, measured peak {peak / 1e9:.1f} GFLOP/s, seed {SEED}")
    ghz = peak / (2 * target.vectors_per_cycle * target.lanes) / 1e9
    rows = []
    for c, h, w, m in LAYERS:
        shape = ConvShape(1, c, h, w, c, 3, SAME)
        row = measure(shape, m, arguments.density, target, arguments.repeats, ghz)
        rows.append(row)
        print(json.dumps(row))
    if arguments.out:
        facts = {**machine(target), "ghz_from_peak": round(ghz, 3)}
        record = {"machine": facts, "versions": versions(), "peak_gflops": peak / 1e9}
        record |= {"density": arguments.density, "seed": SEED, "threads": 1, "layers": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def make_plan(shape: ConvShape, m: int, density: float, target: CpuTarget) -> LayerPlan:
    """The plan with the cost model's blocking."""
    cost = predict(shape, "sparse_winograd", m, density, core_of(target))
    b = cost.blocking
    return LayerPlan(
        "layer",
        shape,
        density,
        "sparse_winograd",
        m,
        b.panel_vectors,
        b.k_block,
        b.channel_block,
        b.rows_at_once,
        cost_cycles=cost.cycles,
        lanes=cost.lanes,
    )


def measure(
    shape: ConvShape, m: int, density: float, target: CpuTarget, repeats: int, ghz: float
) -> dict:
    rng = np.random.default_rng(SEED)
    plan = make_plan(shape, m, density, target)
    lanes = plan.lanes_on(target.lanes)
    layout = kernel_layout(plan, lanes)
    u = rng.standard_normal((layout.v.coordinates, shape.k, shape.c)) / np.sqrt(shape.c)
    u = np.where(rng.random(u.shape) < density, u, 0).astype(np.float32)
    packed = pack(u, plan, lanes)
    x = rng.standard_normal((shape.n, shape.c, shape.h, shape.w)).astype(np.float32)
    bias = rng.standard_normal(shape.k).astype(np.float32)
    out = np.zeros((shape.n, shape.k, shape.oh, shape.ow), np.float32)
    operands = [tvm_ir.runtime_tensor(a) for a in (x, *packed.arrays, bias, out)]
    func = build_conv(plan, EPILOGUE, packed.specs, lanes, target.vector_registers)
    name = func.attrs["global_symbol"]
    kernels = {"all": tvm_ir.build_module(func, target.tvm_target())[name]}
    kernels["all"](*operands)
    expected = np.maximum(winograd_conv2d(x, u, cook_toom(m, shape.r), bias, shape.padding), 0)
    error = float(np.abs(operands[-1].numpy() - expected).max() / expected.max())
    if error > TOLERANCE:
        raise SystemExit(f"wrong answer: error {error:.1e} of the maximum")
    for stage in STAGES:
        kernels[stage] = stage_kernel(stage, plan, packed, target)
    calls = {k: (lambda f=f: f(*operands)) for k, f in kernels.items()}
    times = median_alternating(calls, repeats, warmup=3)
    best = {k: min(t) for k, t in times.items()}
    floor = floors(plan, target, int(np.count_nonzero(u)), ghz * 1e9)
    vectors = layout.panels.vectors * layout.panels.count
    per_vector = ghz * 1e9 / vectors / shape.c
    products = 2 * np.count_nonzero(u) * layout.panels.vectors * lanes
    return {
        "layer": f"{shape.c}>{shape.k} {shape.h}x{shape.w} F({m},3)",
        "lanes": lanes,
        "blocking": [plan.panel_vectors, plan.k_block, plan.channel_block, plan.rows_at_once],
        "error": error,
        "ms": {k: round(t * 1e3, 4) for k, t in best.items()},
        "median_ms": {k: round(statistics.median(t) * 1e3, 4) for k, t in times.items()},
        "predicted_ms": round(plan.cost_cycles / ghz / 1e6, 4),
        "gemm_gflops": round(products * layout.panels.count / best["gemm"] / 1e9, 1),
        "input_cycles": round(best["input"] * per_vector, 1),
        "output_cycles": round(best["output"] * per_vector, 1),
        "effective_gflops": round(shape.direct_flops / best["all"] / 1e9, 1),
        "share_of_floor": {k: round(floor[k] / best[k], 3) for k in floor},
    }


if __name__ == "__main__":
    main()
