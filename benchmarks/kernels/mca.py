"""Cycles of every kernel's inner loop: predicted for AVX-512 and AVX2, and measured where it runs.

    python benchmarks/kernels/mca.py --out benchmarks/results/mca.json

Predicted: llvm-mca 19 runs the loop's instructions through LLVM's model of the core that the code
is made for. Caches, clocks of wide vectors and mispredicted branches are not in it.
Measured: on this machine, whichever CPU it is, if it has the instructions: one thread, all data in
L1, answer checked; the fastest run in CPU time of the thread, of long rows minus shorter ones.
Cycles are those of a chain of multiply-adds that takes four each, run in turn with the others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loops import CALLS, Kernel, Variant, clock_kernel

from tvm_sparsewino.bench.machine import machine, versions
from tvm_sparsewino.hot_loop import Loop, hot_loop
from tvm_sparsewino.schedules.cpu_features import instruction_sets, missing_on_host
from tvm_sparsewino.schedules.target import CpuTarget, parse_target
from tvm_sparsewino.thread_pool import use_threads
from tvm_sparsewino.timing import fastest

TOOL, PACKAGE = "llvm-mca-19", "llvm-19"
ITERATIONS = 1000
PLACES = 5  # of the data in memory: some make a loop a quarter slower
AVX2, AVX512, AVX512_HALVED = "znver3", "skylake-avx512", "znver4"  # the last in two halves
SPARSE, DENSE, DIRECT = "sparse_winograd", "dense_winograd", "dense_direct"

NARROW = [
    *(Variant(SPARSE, *size) for size in ((1, 8), (1, 12), (2, 6), (3, 4), (4, 3))),
    Variant(SPARSE, 2, 6, "balanced"),
    Variant(SPARSE, 2, 6, "kernel"),
    Variant(SPARSE, 2, 6, "rows2"),
    Variant(SPARSE, 4, 3, "rows4"),
    Variant(DENSE, 4, 3),
    Variant(DIRECT, 4, 3),
]
WIDE = [
    *(Variant(SPARSE, *size) for size in ((1, 8), (1, 12), (2, 6), (2, 12), (3, 8), (4, 6))),
    Variant(SPARSE, 2, 12, "balanced"),
    Variant(SPARSE, 2, 12, "kernel"),
    Variant(SPARSE, 2, 12, "rows2"),
    Variant(SPARSE, 4, 6, "rows4"),
    Variant(DENSE, 8, 3),
    Variant(DIRECT, 8, 3),
]
VARIANTS = {AVX2: NARROW, AVX512: WIDE, AVX512_HALVED: WIDE}


@dataclass(frozen=True)
class Prediction:
    """Cycles of one iteration: with all its dependences, and what its ports allow at best."""

    cycles: float
    port_bound: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not shutil.which(TOOL):
        raise SystemExit(f"{TOOL} is not installed; it is in Debian's package {PACKAGE}")
    use_threads(1)
    native = parse_target("native")
    entries = []
    for mcpu, variants in VARIANTS.items():
        target = parse_target(f"llvm -mcpu={mcpu}")
        for variant in variants:
            runs = not missing_on_host(instruction_sets(target.features()))
            entries.append(examine(variant, target, arguments.repeats if runs else 0))
            print(line(entries[-1]), flush=True)
    if arguments.out:
        method = " ".join(__doc__.split("\n\n", 2)[2].split())
        record = {"method": method, "predicted_by": tool_version(), "machine": machine(native)}
        record |= {"versions": versions(), "threads": 1, "loops": entries}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def examine(variant: Variant, target: CpuTarget, repeats: int) -> dict[str, Any]:
    """What is predicted, and with ``repeats`` measured, of one variant for one target."""
    sizes = {size: Kernel(variant, target, *size[1:]) for size in variant.sizes}
    loop = hot_loop(next(iter(sizes.values())).assembly)
    products = len(loop.multiply_adds)
    prediction = predict(loop, target.mcpu)
    measured = cycles_per_multiply_add(variant, sizes, target, repeats) if repeats else None
    per = {"iteration": 1, "coefficient": variant.vectors / products, "multiply_add": 1 / products}
    return {
        "target": target.mcpu,
        "variant": variant.name,
        "instructions": len(loop.body),
        "multiply_adds": products,
        "coefficients": products / variant.vectors,
        "vector_loads": len(loop.vector_loads),
        "spills": len(loop.spills),
        "predicted_port_bound": _scaled(prediction.port_bound, per),
        "predicted_cycles": _scaled(prediction.cycles, per),
        "measured_cycles": _scaled(measured * products, per) if measured else None,
    }


def _scaled(cycles: float, per: dict[str, float]) -> dict[str, float]:
    return {f"per_{name}": round(cycles * share, 3) for name, share in per.items()}


def cycles_per_multiply_add(
    variant: Variant, kernels: dict[tuple, Kernel], target: CpuTarget, repeats: int
) -> float:
    """Measured, with the clock of the same minutes."""
    clock, cycles = clock_kernel(target)
    calls = {(size, i): kernels[size].prepare() for size in kernels for i in range(PLACES)}
    times = fastest({**calls, "clock": clock}, repeats + 1)
    best = {size: min(times[size, i] for i in range(PLACES)) for size in kernels}
    seconds = sum(size[0] * best[size] for size in kernels) / CALLS
    return seconds * (cycles / times["clock"]) / variant.multiply_adds


def predict(loop: Loop, mcpu: str) -> Prediction:
    """One iteration among many, in llvm-mca's model of the CPU."""
    command = [TOOL, "-mtriple=x86_64", f"-mcpu={mcpu}", "-json", f"-iterations={ITERATIONS}"]
    source = "\n".join(loop.body) + "\n"
    result = subprocess.run(
        [*command, "-"], input=source, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"{TOOL}: {result.stderr.strip()}")
    return read_prediction(result.stdout)


def read_prediction(text: str) -> Prediction:
    """From llvm-mca's JSON of one region."""
    (region,) = json.loads(text)["CodeRegions"]
    summary = region["SummaryView"]
    return Prediction(summary["TotalCycles"] / summary["Iterations"], summary["BlockRThroughput"])


def tool_version() -> str:
    output = subprocess.run([TOOL, "--version"], capture_output=True, text=True, check=True).stdout
    return next(x.strip() for x in output.splitlines() if "version" in x)


def line(entry: dict[str, Any]) -> str:
    """One variant for people: cycles per iteration, and per multiply-add."""
    bound, predicted = entry["predicted_port_bound"], entry["predicted_cycles"]
    text = (
        f"{entry['target']:15}{entry['variant']:21}"
        f"{entry['coefficients']:4.0f} coefficients, {entry['multiply_adds']:3} multiply-adds, "
        f"{entry['vector_loads']:3} loads: ports {bound['per_iteration']:6.2f}, "
        f"predicted {predicted['per_iteration']:6.2f} ({predicted['per_multiply_add']:.3f} each)"
    )
    measured = entry["measured_cycles"]
    if measured:
        text += f", measured {measured['per_iteration']:6.2f} ({measured['per_multiply_add']:.3f})"
    return text


if __name__ == "__main__":
    main()
