"""How far the cost model's choice is from the best that was measured, and fitting its prices.

    python benchmarks/planner_report.py --budget 3600 --out benchmarks/results/planner_report.json
    python benchmarks/planner_report.py --fit --out benchmarks/results/planner_report.json

The distinct 3x3 stride-1 layers with at least 32 input channels of ResNet-18, ResNet-50 and VGG-16,
at several densities. Below density 1 weights are random coefficients of F(2,3), F(4,3) and F(6,3);
at density 1 they are random filters, which may be convolved directly, too. For each tile the tuner
searches from the model's choice through its neighbours. Then the model's choice among all tiles and
the best that was found for each tile take turns, and the gap is the time of the first over the
fastest of all. One thread, whose processor time is counted.

Every case is on disk as soon as it is done, and a run goes on where the last one stopped; cases of
other kernels are measured again. All plans that were measured go to a file beside it
(``.samples.jsonl``), from which --fit computes the prices for ``tvm_sparsewino/cost_prices.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

import numpy as np

from tvm_sparsewino.bench.machine import fma_peak, machine, versions
from tvm_sparsewino.config import CompileConfig, ConvShape, LayerPlan
from tvm_sparsewino.cost_prices import PRICES
from tvm_sparsewino.cost_quantities import Blocking, Core, Quantities, quantities
from tvm_sparsewino.files import replacing
from tvm_sparsewino.planner import Option, plan_of, spatial_options, winograd_options
from tvm_sparsewino.planner import machine as machine_core
from tvm_sparsewino.records import tuned_fields
from tvm_sparsewino.schedules.target import CpuTarget, parse_target
from tvm_sparsewino.thread_pool import use_threads
from tvm_sparsewino.tuner.candidates import starts
from tvm_sparsewino.tuner.measure import LocalMachine, Problem
from tvm_sparsewino.tuner.search import Search
from tvm_sparsewino.tuner.version import kernel_version

SAME = (1, 1, 1, 1)
RESNET = [(64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7)]
VGG = [
    *[(64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56)],
    *[(256, 256, 56), (256, 512, 28), (512, 512, 28), (512, 512, 14)],
]
DENSITIES = (0.1, 1.0, 0.05, 0.3)
TILES = (2, 4, 6)
SEED = 0
RACE_CALLS = 20
FITTED = tuple(f.name for f in dataclasses.fields(Quantities))
PULL = 0.3  # how strongly a price that the samples do not decide stays what it was


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=3600, help="seconds of this run")
    parser.add_argument("--fit", action="store_true", help="fit the prices; measure nothing")
    arguments = parser.parse_args()
    samples = arguments.out.with_suffix(".samples.jsonl")
    if arguments.fit:
        fit(samples)
        return
    use_threads(1)
    target = parse_target("native")
    ghz = fma_peak(target) / (2 * target.vectors_per_cycle * target.lanes) / 1e9
    report = read_report(arguments.out)
    end = time.monotonic() + arguments.budget
    cases = [(layer, density) for density in DENSITIES for layer in RESNET + VGG]
    todo = [case for case in cases if case_name(*case) not in report["cases"]]
    for number, (layer, density) in enumerate(todo):
        left = end - time.monotonic()
        if left <= 0:
            print(f"time is up; {len(todo) - number} cases are left for the next run")
            break
        case = measure(layer, density, target, left / (len(todo) - number), samples, ghz)
        report["cases"][case_name(layer, density)] = case
        write_report(arguments.out, report, target, ghz)
        print(case_name(layer, density), json.dumps(case), flush=True)
    print_table(report)


def case_name(layer: tuple[int, int, int], density: float) -> str:
    c, k, h = layer
    return f"{c}>{k} {h}x{h} density {density:g}"


def read_report(path: Path) -> dict:
    """What earlier runs of the same kernels have left."""
    report = json.loads(path.read_text()) if path.exists() else {}
    same = report.get("kernels") == kernel_version() and report.get("prices") == prices_now()
    return {"cases": report["cases"] if same else {}}


def prices_now() -> dict[str, float]:
    return dataclasses.asdict(PRICES)


def write_report(path: Path, report: dict, target: CpuTarget, ghz: float) -> None:
    report |= {"kernels": kernel_version(), "prices": prices_now(), "machine": machine(target)}
    report |= {"ghz_from_peak": round(ghz, 3), "versions": versions(), "seed": SEED, "threads": 1}
    gaps = [case["gap"] for case in report["cases"].values()]
    report |= {"geomean_gap": round(geomean(gaps), 4), "worst_gap": max(gaps)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_text(json.dumps(report, indent=1) + "\n")


def geomean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


# ---- measuring ---------------------------------------------------------------------------------


def measure(
    layer: tuple[int, int, int],
    density: float,
    target: CpuTarget,
    budget: float,
    samples: Path,
    ghz: float,
) -> dict:
    """Search every tile, then race the model's choice against the best of each."""
    c, k, h = layer
    shape = ConvShape(1, c, h, h, k, 3, SAME)
    runs = list(problems(shape, density, target))
    local, finalists = LocalMachine(target, 1), {}
    chosen = min((options[0] for _, options in runs), key=lambda option: option.cost.cycles)
    measured = 0
    for problem, options in runs:
        search = Search(problem, local, target, 1, budget / len(runs) * 0.8)
        found = search.run(starts(problem, options, target, 1))
        note_samples(samples, search.measured, ghz)
        measured += found.candidates
        finalists[plan_text(found.plan)] = (problem, found.plan)
        if chosen in options:
            choice = plan_of("", shape, chosen)
            finalists[plan_text(choice)] = (problem, choice)
    seconds = race(finalists, local)
    best = min(seconds, key=seconds.get)
    return {
        "model": plan_text(choice),
        "best": best,
        "gap": round(seconds[plan_text(choice)] / seconds[best], 4),
        "ms": {name: round(s * 1e3, 4) for name, s in seconds.items()},
        "predicted_ms": round(chosen.cost.cycles / ghz / 1e6, 4),
        "candidates": measured,
    }


def problems(
    shape: ConvShape, density: float, target: CpuTarget
) -> list[tuple[Problem, list[Option]]]:
    """What is searched: a layer for each tile, or one whose weights are a filter."""
    rng = np.random.default_rng(SEED)
    if density == 1.0:
        weight = rng.standard_normal((shape.k, shape.c, 3, 3), np.float32)
        options = spatial_options(shape, weight, target, CompileConfig(max_tile=6))
        return [(Problem(shape, weight, 0), options)]
    runs = []
    for m in TILES:
        u = rng.standard_normal(((m + 2) ** 2, shape.k, shape.c), np.float32)
        u[rng.random(u.shape, np.float32) >= density] = 0
        runs.append((Problem(shape, u, m), winograd_options(shape, u, m, target)))
    return runs


def race(finalists: dict[str, tuple[Problem, LayerPlan]], local: LocalMachine) -> dict[str, float]:
    """Seconds of the fastest of many calls, one of each plan in turn."""
    kernels = {name: local.kernel(*finalist) for name, finalist in finalists.items()}
    seconds = {name: [] for name in kernels}
    for call in range(RACE_CALLS + 2):
        for name, kernel in kernels.items():
            taken = kernel.seconds()
            seconds[name] += [taken] if call >= 2 else []
    return {name: min(calls) for name, calls in seconds.items()}


def plan_text(plan: LayerPlan) -> str:
    sizes = (plan.panel_vectors, plan.k_block, plan.channel_block, plan.rows_at_once)
    tile = f" F({plan.m},3)" if plan.m else ""
    tile += f" {plan.lanes} lanes" if plan.lanes else ""
    return f"{plan.algorithm}{tile} {'/'.join(map(str, sizes))}"


def note_samples(path: Path, measured: list[tuple[LayerPlan, float]], ghz: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for plan, seconds in measured:
            sample = {"conv": dataclasses.asdict(plan.conv), "density": plan.density}
            sample |= {**tuned_fields(plan), "cycles": seconds * ghz * 1e9}
            file.write(json.dumps(sample | {"kernels": kernel_version()}) + "\n")


def print_table(report: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="the cost model's choice beside the best that was measured")
    for name in ("case", "model's choice", "ms", "best", "ms", "gap", "predicted ms"):
        table.add_column(name, justify="right" if "ms" in name or name == "gap" else "left")
    for name, case in report["cases"].items():
        ms = case["ms"]
        row = [name, case["model"], f"{ms[case['model']]:.4g}", case["best"]]
        row += [f"{ms[case['best']]:.4g}", f"{case['gap']:.2f}", f"{case['predicted_ms']:.4g}"]
        table.add_row(*row)
    console = Console(width=160)
    console.print(table)
    if report["cases"]:
        gaps = [case["gap"] for case in report["cases"].values()]
        console.print(f"geomean gap {geomean(gaps):.3f} over {len(gaps)} cases, worst {max(gaps)}")


# ---- fitting -----------------------------------------------------------------------------------


def fit(path: Path) -> None:
    """Print the prices that fit the samples best, and how well they do."""
    every = [json.loads(line) for line in path.read_text().splitlines()]
    samples = [s for s in every if s["kernels"] == kernel_version() and s["m"]]
    if not samples:
        raise SystemExit(f"{path}: none of {len(every)} samples is of a Winograd kernel of today")
    target = parse_target("native")
    cores = {core.lanes: core for core in machine_core(target).widths()} | {0: machine_core(target)}
    stages = (count(sample, cores[sample["lanes"]]) for sample in samples)
    counted = np.array([[getattr(q, n) for n in FITTED] for q in stages])
    cycles = np.array([s["cycles"] for s in samples])
    before = np.array([getattr(PRICES, name) for name in FITTED])
    prices = nonnegative(counted / cycles[:, None], before)
    for text, values in (("now", before), ("fitted", prices)):
        ratio = counted @ values / cycles
        spread = math.exp(np.std(np.log(ratio)))
        print(f"{text}: {dict(zip(FITTED, np.round(values, 3).tolist(), strict=True))}")
        print(
            f"  predicted over measured: geomean {geomean(ratio):.3f}, spread {spread:.3f}, "
            f"{len(samples)} samples"
        )


def count(sample: dict, core: Core) -> Quantities:
    """What a measured plan does, all stages together."""
    conv = {k: tuple(v) if isinstance(v, list) else v for k, v in sample["conv"].items()}
    sizes = (sample[f.name] for f in dataclasses.fields(Blocking))
    kind = (sample["algorithm"], sample["m"], sample["density"], core, Blocking(*sizes))
    stages = quantities(ConvShape(**conv), *kind, sample["structure"])
    return Quantities(*(sum(getattr(stage, name) for stage in stages) for name in FITTED))


def nonnegative(relative: np.ndarray, before: np.ndarray, rounds: int = 20_000) -> np.ndarray:
    """Prices >= 0 for which ``relative @ prices`` is nearest to 1, by projected coordinate descent.

    Quantities that the samples hardly tell apart would get wild prices: every price is pulled
    weakly, in units of its share, to what it was.
    """
    share = np.maximum((relative * before).mean(axis=0), 1e-6)
    pull = PULL * len(relative) * (share / np.maximum(before, 1e-6)) ** 2
    gram = relative.T @ relative + np.diag(pull)
    wanted = relative.sum(axis=0) + pull * before
    prices = before.copy()
    for _ in range(rounds):
        for i in range(len(prices)):
            step = (wanted[i] - gram[i] @ prices) / max(gram[i, i], 1e-30)
            prices[i] = max(0.0, prices[i] + step)
    return prices


if __name__ == "__main__":
    main()
