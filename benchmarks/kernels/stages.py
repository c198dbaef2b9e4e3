"""Where the time of the fused kernel goes: every stage alone, beside its floor.

    python benchmarks/kernels/stages.py --out benchmarks/results/kernel_stages.json

For each layer the whole kernel is checked against the float64 reference, then the kernel and its
three stages (each built alone) run alternately. Reported: the fastest and the median time, real
(nonzero) GFLOP/s of the GEMM, cycles per channel and vector of the transforms, effective GFLOP/s,
and each stage's share of its floor. Floors are bounds of one core with everything in L1: two
multiply-adds, two vector loads and one vector store a cycle. One thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from pathlib import Path

import numpy as np
import tvm

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino._compat import T
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.cost import predict
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.packing import PackedWeights, pack
from tvm_sparsewino.reference import winograd_conv2d
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.epilogue import EpilogueOperands
from tvm_sparsewino.schedules.input_transform import emit_input_transform
from tvm_sparsewino.schedules.output_transform import emit_output_transform
from tvm_sparsewino.schedules.sparse_gemm import emit_sparse_gemm
from tvm_sparsewino.schedules.target import CpuTarget, parse_target
from tvm_sparsewino.thread_pool import use_threads
from tvm_sparsewino.timing import median_alternating

SAME = (1, 1, 1, 1)
# (channels, height, width, m): the inner layer of FFDNet at 640x424 and ResNet-18's stages.
LAYERS = [(96, 212, 320, 4), (64, 56, 56, 4), (128, 28, 28, 4), (256, 14, 14, 2), (512, 7, 7, 2)]
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
    ghz = peak / (4 * target.lanes) / 1e9
    rows = []
    for c, h, w, m in LAYERS:
        shape = ConvShape(1, c, h, w, c, 3, SAME)
        row = measure(shape, m, arguments.density, target, arguments.repeats, ghz)
        rows.append(row)
        print(json.dumps(row))
    if arguments.out:
        machine = {"cpu": target.mcpu, "cores": target.cores, "ghz_from_peak": round(ghz, 3)}
        versions = {"python": platform.python_version(), "tvm": tvm.__version__}
        record = {"machine": machine, "versions": versions, "peak_gflops": peak / 1e9}
        record |= {"density": arguments.density, "seed": SEED, "threads": 1, "layers": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def fma_peak(target: CpuTarget, chains: int = 12, steps: int = 200_000) -> float:
    """FLOP/s of independent multiply-add chains that stay in registers."""
    lanes = target.lanes
    with tvm_ir.prim_func("peak") as builder:
        x = tvm_ir.arg("x", (lanes,), "float32")
        out = tvm_ir.arg("out", (chains * lanes,), "float32")
        with tvm_ir.local_buffer((chains * lanes,)) as sums:
            every = [tvm_ir.ramp(i * lanes, 1, lanes) for i in range(chains)]
            for at in every:
                T.buffer_store(sums, x[tvm_ir.ramp(0, 1, lanes)], [at])
            with T.serial(0, steps):
                for at in every:
                    scaled = sums[at] * x[tvm_ir.ramp(0, 1, lanes)]
                    T.buffer_store(sums, scaled + tvm_ir.broadcast(0.5, lanes), [at])
            for at in every:
                T.buffer_store(out, sums[at], [at])
    func = tvm_ir.build_module(builder.get(), target.tvm_target())["peak"]
    x = tvm_ir.runtime_tensor(np.full(lanes, 0.5, np.float32))
    out = tvm_ir.runtime_tensor(np.zeros(chains * lanes, np.float32))
    times = median_alternating({"peak": lambda: func(x, out)}, repeats=20)["peak"]
    return 2 * lanes * chains * steps / min(times)


def make_plan(shape: ConvShape, m: int, density: float, target: CpuTarget) -> LayerPlan:
    """The plan with the cost model's blocking."""
    cost = predict(shape, "sparse_winograd", m, density, target)
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
    )


def stage_kernel(stage: str, plan: LayerPlan, packed: PackedWeights, target: CpuTarget):
    """The fused kernel with only one of its stages; same parameters, meaningless output."""
    layout, shape = kernel_layout(plan, target.lanes), plan.conv
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
            tvm_ir.scratch((layout.v.size,)) as v,
            tvm_ir.scratch((layout.product.size,)) as product,
        ):
            if stage == "input":
                channels = (0, shape.c)
                emit_input_transform(data, v, shape, layout, algorithm, panel, channels)
            with T.serial(0, layout.k_blocks) as block:
                if stage == "gemm":
                    emit_sparse_gemm(weights, v, product, block, plan, layout)
                elif stage == "output":
                    emit_output_transform(
                        product, output, block, panel, shape, layout, algorithm, operands
                    )
    return tvm_ir.build_module(builder.get(), target.tvm_target())[stage]


def measure(
    shape: ConvShape, m: int, density: float, target: CpuTarget, repeats: int, ghz: float
) -> dict:
    rng = np.random.default_rng(SEED)
    plan = make_plan(shape, m, density, target)
    layout = kernel_layout(plan, target.lanes)
    u = rng.standard_normal((layout.v.coordinates, shape.k, shape.c)) / np.sqrt(shape.c)
    u = np.where(rng.random(u.shape) < density, u, 0).astype(np.float32)
    packed = pack(u, plan, target.lanes)
    x = rng.standard_normal((shape.n, shape.c, shape.h, shape.w)).astype(np.float32)
    bias = rng.standard_normal(shape.k).astype(np.float32)
    out = np.zeros((shape.n, shape.k, shape.oh, shape.ow), np.float32)
    operands = [tvm_ir.runtime_tensor(a) for a in (x, *packed.arrays, bias, out)]
    func = build_conv(plan, EPILOGUE, packed.specs, target.lanes, target.vector_registers)
    name = func.attrs["global_symbol"]
    kernels = {"all": tvm_ir.build_module(func, target.tvm_target())[name]}
    kernels["all"](*operands)
    expected = np.maximum(winograd_conv2d(x, u, cook_toom(m, shape.r), bias, shape.padding), 0)
    error = float(np.abs(operands[-1].numpy() - expected).max() / expected.max())
    if error > TOLERANCE:
        raise SystemExit(f"wrong answer: error {error:.1e} of the maximum")
    for stage in ("input", "gemm", "output"):
        kernels[stage] = stage_kernel(stage, plan, packed, target)
    calls = {k: (lambda f=f: f(*operands)) for k, f in kernels.items()}
    times = median_alternating(calls, repeats, warmup=3)
    best = {k: min(t) for k, t in times.items()}
    floor = floors(plan, target, int(np.count_nonzero(u)), ghz)
    vectors = layout.panels.total_rows * layout.panels.segment_vectors
    per_vector = ghz * 1e9 / vectors / shape.c
    products = 2 * np.count_nonzero(u) * layout.panels.vectors * target.lanes
    return {
        "layer": f"{shape.c}>{shape.k} {shape.h}x{shape.w} F({m},3)",
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


def floors(plan: LayerPlan, target: CpuTarget, nonzeros: int, ghz: float) -> dict[str, float]:
    """Seconds below which no stage can run on one core: the busiest of its three resources."""
    layout, shape, lanes = kernel_layout(plan, target.lanes), plan.conv, target.lanes
    panels, algorithm = layout.panels, cook_toom(plan.m, plan.conv.r)
    alpha, m = algorithm.alpha, algorithm.m
    vectors = panels.total_rows * panels.segment_vectors
    arithmetic = {k: _operations(x) for k, x in (("bt", algorithm.bt), ("at", algorithm.at))}
    chunks = panels.staged_width / lanes / panels.segment_vectors
    rows = nonzeros * panels.vectors * panels.count
    cycles = {
        # vertical pass on every input vector, horizontal pass on every row of the tile
        "input": vectors
        * shape.c
        * max(
            (chunks * arithmetic["bt"] + alpha * arithmetic["bt"]) / 2,
            (chunks * alpha + alpha * chunks) / 2,
            chunks * alpha + alpha * alpha,
        ),
        "gemm": max(rows / 2, rows * (1 + 1 / panels.vectors) / 2),
        "output": vectors
        * shape.k
        * max((alpha + m) * arithmetic["at"] / 2, alpha * alpha / 2, m * m),
    }
    return {k: value / (ghz * 1e9) for k, value in cycles.items()}


def _operations(matrix) -> int:
    """Multiply-adds of one application of a transform, common parts shared."""
    nonzero = sum(1 for row in matrix for c in row if c)
    return nonzero - len(matrix)


if __name__ == "__main__":
    main()
