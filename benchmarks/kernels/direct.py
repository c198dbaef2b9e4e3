"""Sparse direct convolution beside the dense direct one and its floor, layer by layer.

    python benchmarks/kernels/direct.py --out benchmarks/results/kernel_direct.json

Layers are those of ResNet-50 that Winograd cannot take, with unstructured zeros, and for comparison
some that it can. Each kernel has the blocking that the cost model picks; each is checked against
the float64 reference before it is timed; kernels of a layer take turns. One thread.

The floor is what one core needs with everything in L1: a vector load for every nonzero and vector
of outputs (two a cycle; multiply-adds are as many), or the bytes of the maps and of the packed
weights at ``--bandwidth``, whatever is more.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from tvm_sparsewino.bench.machine import fma_peak, machine, versions
from tvm_sparsewino.config import CompileConfig, ConvShape, LayerPlan
from tvm_sparsewino.planner import plan_of, spatial_options
from tvm_sparsewino.reference import conv2d
from tvm_sparsewino.schedules.target import CpuTarget, parse_target
from tvm_sparsewino.tuner.measure import LocalMachine, Problem

SAME, NONE = (1, 1, 1, 1), (0, 0, 0, 0)
LAYERS = {
    "64>256 1x1 @56": ConvShape(1, 64, 56, 56, 256, 1),
    "256>64 1x1 @56": ConvShape(1, 256, 56, 56, 64, 1),
    "256>512 1x1/2 @56": ConvShape(1, 256, 56, 56, 512, 1, NONE, 1, 2),
    "512>128 1x1 @28": ConvShape(1, 512, 28, 28, 128, 1),
    "128>512 1x1 @28": ConvShape(1, 128, 28, 28, 512, 1),
    "1024>256 1x1 @14": ConvShape(1, 1024, 14, 14, 256, 1),
    "256>1024 1x1 @14": ConvShape(1, 256, 14, 14, 1024, 1),
    "2048>512 1x1 @7": ConvShape(1, 2048, 7, 7, 512, 1),
    "512>2048 1x1 @7": ConvShape(1, 512, 7, 7, 2048, 1),
    "3>64 7x7/2 @224": ConvShape(1, 3, 224, 224, 64, 7, (3, 3, 3, 3), 1, 2),
    "64>128 3x3/2 @56": ConvShape(1, 64, 56, 56, 128, 3, SAME, 1, 2),
    "128>128 3x3/2 @56": ConvShape(1, 128, 56, 56, 128, 3, SAME, 1, 2),
    "256>512 3x3/2 @14": ConvShape(1, 256, 14, 14, 512, 3, SAME, 1, 2),
    "512>512 3x3/2 @14": ConvShape(1, 512, 14, 14, 512, 3, SAME, 1, 2),
    "64>64 3x3 @56": ConvShape(1, 64, 56, 56, 64, 3, SAME),
    "128>128 3x3 @28": ConvShape(1, 128, 28, 28, 128, 3, SAME),
    "256>256 3x3 @14": ConvShape(1, 256, 14, 14, 256, 3, SAME),
    "512>512 3x3 @7": ConvShape(1, 512, 7, 7, 512, 3, SAME),
}
STEP_BYTES, FLOAT_BYTES = 8, 4
SEED = 0
TOLERANCE = 2e-5  # max error over max |output|; float32 sums of up to 2304 terms, F(4,3) among them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--bandwidth", type=float, default=20.0, help="GB/s beyond L2")
    parser.add_argument("--layers", help="comma-separated parts of names")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    target = parse_target("native")
    peak = fma_peak(target)
    print(f"{target.text}, measured peak {peak / 1e9:.1f} GFLOP/s, seed {SEED}")
    wanted = (arguments.layers or "").split(",")
    rows = []
    for name, shape in LAYERS.items():
        if any(part in name for part in wanted):
            floor = floor_seconds(shape, arguments.density, peak, arguments.bandwidth * 1e9)
            row = measure(shape, arguments.density, target, arguments.repeats)
            row = {"layer": name, "floor_ms": round(floor * 1e3, 4), **row}
            rows.append(row)
            print(_line(row), flush=True)
    if arguments.out:
        record = {
            "machine": machine(target),
            "versions": versions(),
            "peak_gflops": round(peak / 1e9, 1),
            "density": arguments.density,
            "seed": SEED,
            "threads": 1,
            "layers": rows,
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def floor_seconds(shape: ConvShape, density: float, peak: float, bandwidth: float) -> float:
    """The time below which one core cannot be; peak in FLOP/s, bandwidth in bytes/s."""
    products = shape.direct_flops * density / peak
    weights = shape.k * shape.c // shape.groups * shape.taps * density * STEP_BYTES
    maps = shape.n * (shape.c * shape.h * shape.w + shape.k * shape.oh * shape.ow) * FLOAT_BYTES
    return max(products, (weights + maps) / bandwidth)


def measure(shape: ConvShape, density: float, target: CpuTarget, repeats: int) -> dict:
    """Milliseconds of the dense and the sparse direct kernel and of what the planner picks."""
    rng = np.random.default_rng(SEED)
    weight = rng.standard_normal((shape.k, shape.c // shape.groups, shape.r, shape.s), np.float32)
    weight[rng.random(weight.shape) >= density] = 0
    problem, local = Problem(shape, weight, 0), LocalMachine(target, 1)
    options = spatial_options(shape, weight, target, CompileConfig())
    plans: dict[str, LayerPlan] = {}
    for option in options:  # cheapest first
        plans.setdefault(option.algorithm, plan_of("layer", shape, option))
    picked = options[0].algorithm
    names = dict.fromkeys(("dense_direct", "sparse_direct", picked))
    kernels = {name: local.kernel(problem, plans[name]) for name in names}
    x, bias, _ = problem.activations
    steps = (shape.padding, shape.stride, shape.dilation, shape.groups)
    want = np.maximum(conv2d(x, weight, bias, *steps), 0)
    for name, kernel in kernels.items():
        kernel.seconds()
        error = np.abs(kernel.output() - want).max() / np.abs(want).max()
        if not error <= TOLERANCE:
            raise SystemExit(f"{shape}, {name}: error {error:.2g}")
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(repeats):
        for name, kernel in kernels.items():
            times[name].append(kernel.seconds())
    best = {name: min(values) * 1e3 for name, values in times.items()}
    blocking = plans["sparse_direct"]
    return {
        **{f"{name}_ms": round(value, 4) for name, value in best.items()},
        "picked": picked,
        "gain": round(best["dense_direct"] / best["sparse_direct"], 2),
        "predicted_mcycles": round(blocking.cost_cycles / 1e6, 3),
        "real_gflops": round(shape.direct_flops * density / best["sparse_direct"] / 1e6, 1),
        "blocking": [
            blocking.panel_vectors,
            blocking.k_block,
            blocking.channel_block,
            blocking.rows_at_once,
        ],
    }


def _line(row: dict) -> str:
    share = row["floor_ms"] / row["sparse_direct_ms"]
    return (
        f"{row['layer']:20} dense {row['dense_direct_ms']:7.3f}  sparse "
        f"{row['sparse_direct_ms']:7.3f} ms  {row['gain']:5.2f}x  {row['real_gflops']:5.1f} GFLOP/s"
        f"  floor {row['floor_ms']:.3f} ({share:.0%})  picked {row['picked']} "
        f"{row[row['picked'] + '_ms']:.3f} ms"
    )


if __name__ == "__main__":
    main()
