"""What a structure of zeros is worth: every structure against unstructured, at equal sparsity.

    python benchmarks/kernels/structures.py --out benchmarks/results/structures.json

For each layer the patterns are random in their structure, 3 of 32 coefficients are not zero. Each
structure runs with the blocking that is fastest when measured: the panels that the cost model ranks
first, with several sizes of the blocks of output channels. Every kernel is checked against the
float64 reference. Then the kernels, and their product stage alone, take turns. Reported is the
fastest run in CPU time of the calling thread, so that other work on the machine disturbs little.
One thread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino._compat import T
from tvm_sparsewino.bench.machine import machine, versions
from tvm_sparsewino.config import STRUCTURES, ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.cost import ranked
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.packing import PackedWeights, pack
from tvm_sparsewino.planner import machine as core_of
from tvm_sparsewino.reference import winograd_conv2d
from tvm_sparsewino.schedules.blocks import Blocks
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.sparse_gemm import emit_sparse_gemm
from tvm_sparsewino.schedules.structured_gemm import emit_structured_gemm
from tvm_sparsewino.schedules.target import CpuTarget, parse_target
from tvm_sparsewino.structure import detect_structure, shared_rows
from tvm_sparsewino.thread_pool import use_threads
from tvm_sparsewino.timing import fastest

# (channels, height = width, m)
LAYERS = [(64, 56, 4), (128, 28, 4), (256, 14, 2), (512, 7, 2), (256, 56, 4)]
DENSITY = 3 / 32  # a whole number of coefficients in rows of 64 channels and more
K_BLOCKS = (64, 256, 512)  # at most; the model knows up to 96
EPILOGUE = Epilogue(bias=True, activation="relu")
SEED = 0
TOLERANCE = 2e-5  # max error over max |output|, F(4,3) up to 512 channels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--candidates", type=int, default=4, help="panels tried per structure")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_threads(1)
    target = parse_target("native")
    rows = []
    for c, size, m in LAYERS:
        shape = ConvShape(1, c, size, size, c, 3, (1, 1, 1, 1))
        row = measure(shape, m, target, arguments.candidates, arguments.repeats)
        rows.append(row)
        print(table(row), flush=True)
    if arguments.out:
        record = {"machine": machine(target), "versions": versions()}
        record |= {"density": DENSITY, "seed": SEED, "threads": 1, "layers": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def measure(
    shape: ConvShape, m: int, target: CpuTarget, candidates: int, repeats: int
) -> dict[str, object]:
    """The fastest kernel of every structure, and what it takes."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((shape.n, shape.c, shape.h, shape.w)).astype(np.float32)
    calls: dict[tuple[str, str], Callable[[], None]] = {}
    found = {}
    for structure in STRUCTURES:
        u = random_weight(structure, shape, m, rng)
        bias = np.linspace(-1, 1, shape.k, dtype=np.float32)
        expected = np.maximum(winograd_conv2d(x, u, cook_toom(m, shape.r), bias, shape.padding), 0)
        tried = {}
        for plan in plans(shape, m, structure, np.count_nonzero(u) / u.size, target, candidates):
            packed = pack(u, plan, plan.lanes_on(target.lanes))
            tried[plan] = packed, whole_kernel(plan, packed, (x, bias), expected, target)
        times = fastest({plan: call for plan, (_, call) in tried.items()}, repeats // 3 + 2)
        plan = min(times, key=times.get)
        packed, calls["all", structure] = tried[plan]
        calls["gemm", structure] = product_kernel(plan, packed, target)
        panels = kernel_layout(plan, plan.lanes_on(target.lanes)).panels
        products = np.count_nonzero(u) * panels.vectors * panels.count
        found[structure] = {
            "density": round(plan.density, 5),
            "detected": detect_structure(u),
            "lanes": panels.lanes,
            "blocking": (plan.panel_vectors, plan.k_block, plan.channel_block, plan.rows_at_once),
            "packed_kib": round(packed.nbytes / 1024),
            "_flops": 2 * products * panels.lanes,
        }
    times = fastest(calls, repeats + 1)
    for structure, entry in found.items():
        whole, gemm = times["all", structure], times["gemm", structure]
        entry["ms"], entry["gemm_ms"] = round(whole * 1e3, 4), round(gemm * 1e3, 4)
        entry["gemm_gflops"] = round(entry.pop("_flops") / gemm / 1e9, 1)
        entry["speedup"] = round(times["all", "unstructured"] / whole, 3)
        entry["gemm_speedup"] = round(times["gemm", "unstructured"] / gemm, 3)
    return {"layer": f"{shape.c}>{shape.k} {shape.h}x{shape.w} F({m},3)", "structures": found}


def random_weight(structure: str, shape: ConvShape, m: int, rng: np.random.Generator) -> np.ndarray:
    """U with the same number of nonzeros in every structure, at random where it allows."""
    coordinates, kept = (m + shape.r - 1) ** 2, DENSITY * shape.c
    if structure == "balanced":
        alive = rng.random((coordinates, shape.k, shape.c)).argsort(axis=2) < kept
    else:
        units = (1 if structure == "kernel" else coordinates, shape.k // shared_rows(structure))
        scores = rng.random((*units, shape.c))
        alive = scores < np.quantile(scores, DENSITY)
        alive = np.broadcast_to(
            alive.repeat(shared_rows(structure), axis=1), (coordinates, shape.k, shape.c)
        )
    values = rng.standard_normal(alive.shape) / np.sqrt(shape.c)
    return np.where(alive, values, 0).astype(np.float32)


def plans(
    shape: ConvShape, m: int, structure: str, density: float, target: CpuTarget, count: int
) -> list[LayerPlan]:
    """The ``count`` panels that the model ranks first, with blocks of output channels of any size.

    Products of few output channels stay in the cache until they are transformed, many use inputs
    more often while they are there.
    """
    costs = ranked(shape, "sparse_winograd", m, density, core_of(target, 1), structure)
    panels = dict.fromkeys(
        (c.blocking.panel_vectors, c.blocking.rows_at_once, c.lanes) for c in costs
    )
    chosen = list(panels)[:count]
    if shared_rows(structure) > 1:
        # Wide panels, which the kernel computes in parts.
        chosen += [(7, shared_rows(structure), costs[0].lanes)]
    return [
        LayerPlan(
            "layer",
            shape,
            density,
            "sparse_winograd",
            m,
            panel_vectors=vectors,
            k_block=k_block,
            channel_block=costs[0].blocking.channel_block,
            rows_at_once=rows,
            structure=structure,
            lanes=lanes,
        )
        for vectors, rows, lanes in chosen
        for k_block in sorted({min(k_block, shape.k) for k_block in K_BLOCKS})
    ]


def whole_kernel(
    plan: LayerPlan,
    packed: PackedWeights,
    inputs: tuple[np.ndarray, np.ndarray],
    expected: np.ndarray,
    target: CpuTarget,
) -> Callable[[], None]:
    """A call of the fused kernel, whose answer has been checked."""
    x, bias = inputs
    arrays = (x, *packed.arrays, bias, np.zeros(expected.shape, np.float32))
    operands = [tvm_ir.runtime_tensor(a) for a in arrays]
    lanes = plan.lanes_on(target.lanes)
    func = build_conv(plan, EPILOGUE, packed.specs, lanes, target.vector_registers)
    kernel = tvm_ir.build_module(func, target.tvm_target())[func.attrs["global_symbol"]]
    kernel(*operands)
    error = float(np.abs(operands[-1].numpy() - expected).max() / expected.max())
    if error > TOLERANCE:
        raise SystemExit(f"{plan.structure}: wrong answer, error {error:.1e} of the maximum")
    return lambda: kernel(*operands)


def product_kernel(plan: LayerPlan, packed: PackedWeights, target: CpuTarget) -> Callable[[], None]:
    """A call of the product stage alone, panel by panel in the same scratch."""
    layout = kernel_layout(plan, plan.lanes_on(target.lanes))
    with tvm_ir.prim_func("product") as builder:
        weights = [tvm_ir.arg(f"packed_{i}", *spec) for i, spec in enumerate(packed.specs)]
        v = tvm_ir.arg("v", (layout.v.size,), "float32")
        product = tvm_ir.arg("product", (layout.product.size,), "float32")
        registers = target.vector_registers
        with T.serial(0, layout.panels.count), T.serial(0, layout.k_blocks) as block:
            if plan.structure == "unstructured":
                emit_sparse_gemm(weights, v, product, Blocks(block), plan, layout, registers)
            else:
                emit_structured_gemm(weights, v, product, Blocks(block), plan, layout, registers)
    kernel = tvm_ir.build_module(builder.get(), target.tvm_target())["product"]
    inputs = np.linspace(-1, 1, layout.v.size, dtype=np.float32)
    arrays = (*packed.arrays, inputs, np.zeros(layout.product.size, np.float32))
    operands = [tvm_ir.runtime_tensor(a) for a in arrays]
    return lambda: kernel(*operands)


def table(row: dict) -> str:
    """One layer for people."""
    lines = [row["layer"]]
    for name, e in row["structures"].items():
        lines.append(
            f"  {name:13}{e['ms']:8.3f} ms {e['speedup']:6.2f}x   product {e['gemm_ms']:7.3f} ms "
            f"{e['gemm_speedup']:5.2f}x {e['gemm_gflops']:6.1f} GFLOP/s {e['packed_kib']:6} KiB "
            f"{e['blocking']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
