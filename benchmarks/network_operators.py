"""Every operator of every network beside its floor: measure, record, write the page.

    python benchmarks/network_operators.py [--only NETWORK ...] [--density D ...] [--again]

Each network is compiled at densities 1 and 0.1, its answer compared with PyTorch's or ONNX
Runtime's, and every kernel timed on one thread while the network runs (CPU time, least of many).
The record, benchmarks/results/network_operators.jsonl, gets a line per network and density as soon
as it is measured; what it holds already is not measured again, unless asked for. docs/operators.md
is written from it.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import operator_cases
import operators_page

from tvm_sparsewino import driver
from tvm_sparsewino.bench.machine import machine, versions
from tvm_sparsewino.bench.profile_figures import MENTIONED, Limits, rows
from tvm_sparsewino.bench.profile_run import machine_limits, profile_network
from tvm_sparsewino.relay_passes.plan_layers import as_cpu_target

RECORD = Path(__file__).resolve().parent / "results" / "network_operators.jsonl"
DENSITIES = (1.0, 0.1)
TOLERANCE = 1e-3  # of the output's maximum: float32 through 121 layers, Winograd's rounding
_SECONDS, _FEWEST, _MOST = 1.5, 5, 40  # for each of two series of calls


def measure(name: str, density: float) -> dict[str, Any]:
    """The record of one network.

    Raises:
        SystemExit: the answer is wrong.
    """
    made = operator_cases.make(name, density)
    start = time.perf_counter()
    exe = driver.compile(made.module, "native", num_threads=1)
    compiled = time.perf_counter() - start
    got = exe(made.x)
    got = [got] if isinstance(got, np.ndarray) else list(got)
    errors = {engine: _error(got, want) for engine, want in made.answers.items()}
    if not max(errors.values()) < TOLERANCE:
        raise SystemExit(f"{name} at density {density}: wrong answer, {errors}")
    start = time.perf_counter()
    exe(made.x)
    runs = int(_SECONDS / (time.perf_counter() - start))
    measured = profile_network(exe, max(_FEWEST, min(runs, _MOST)), "cpu")
    limits = machine_limits(exe, "cpu")
    every = rows(measured, limits, min)
    found = [row for row in every if row.share > MENTIONED]
    return {
        "network": name,
        "density": density,
        "errors": errors,
        "compile_seconds": round(compiled, 1),
        "ms": 1e3 * min(measured.seconds),
        "kernels": len(every),
        "kernels_ms": sum(row.ms for row in every),
        "limits": limits_json(limits),
        "operators": [asdict(row) for row in found],
    }


def limits_json(limits: Limits) -> dict[str, Any]:
    """What the machine could do while this was measured."""
    return {**asdict(limits), "copies": {str(size): rate for size, rate in limits.copies.items()}}


def _error(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    """The largest difference, of the largest number of that output."""
    pairs = zip(got, want, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def known(path: Path) -> dict[tuple[str, float], dict[str, Any]]:
    """The record, by network and density."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text().splitlines())
    return {(line["network"], line["density"]): line for line in lines}


def main() -> None:
    """Measure what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = operator_cases.NAMES
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NETWORK")
    parser.add_argument("--density", nargs="+", type=float, default=DENSITIES, metavar="D")
    parser.add_argument("--again", action="store_true", help="measure what is recorded, too")
    parser.add_argument("--out", type=Path, default=RECORD, metavar="FILE.jsonl")
    parser.add_argument("--page", type=Path, default=operators_page.PAGE, metavar="FILE.md")
    arguments = parser.parse_args()
    conditions = {"machine": machine(as_cpu_target("native")), "versions": versions()}
    for name in arguments.only:
        for density in arguments.density:
            if (name, density) in known(arguments.out) and not arguments.again:
                continue
            line = {**measure(name, density), **conditions}
            keep(arguments.out, line)
            print(operators_page.summary(line), flush=True)
            gc.collect()
    operators_page.write(arguments.page, list(known(arguments.out).values()))


def keep(path: Path, line: dict[str, Any]) -> None:
    """Put a line into the record, in place of one of the same network and density."""
    lines = {**known(path), (line["network"], line["density"]): line}
    order = {name: number for number, name in enumerate(operator_cases.NAMES)}
    chosen = sorted(lines.values(), key=lambda r: (order[r["network"]], -r["density"]))
    path.write_text("".join(json.dumps(kept) + "\n" for kept in chosen))


if __name__ == "__main__":
    main()
