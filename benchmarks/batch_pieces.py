"""A batch at once, or in pieces: one after another with all threads in each, or side by side.

    python benchmarks/batch_pieces.py --networks resnet18 resnet50 vgg16 mobilenet_v2 \\
        --densities 1 0.1 --threads 1 2 --out benchmarks/results/batch_pieces.json

Maps of one image stay in the caches between layers, those of many do not; weights are read once per
call; pieces side by side do not wait for each other within layers. Answers are compared first.
Every way takes its turn; the fastest and the median call count. Prints a line per way, and what
compiling would choose; ``--out`` takes all as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

import numpy as np

from tvm_sparsewino import driver
from tvm_sparsewino._autoload import autoload
from tvm_sparsewino.artefact import TensorInfo, batch_entry
from tvm_sparsewino.batch_choice import planned
from tvm_sparsewino.bench import machine
from tvm_sparsewino.bench.network_models import images, make_source
from tvm_sparsewino.crew import Crew
from tvm_sparsewino.exchange import aligned_empty, any_tensor, array_of
from tvm_sparsewino.nn.inference import as_tensors
from tvm_sparsewino.relay_passes.pipeline import prepare
from tvm_sparsewino.relay_passes.plan_layers import plan as plan_layers
from tvm_sparsewino.schedules.target import parse_target
from tvm_sparsewino.thread_pool import use_threads
from tvm_sparsewino.timing import median_alternating

SIZE, SEED = 224, 0
TOLERANCE = 1e-4  # of the largest output: plans may differ
AT_ONCE = "at once"


def in_pieces(network, crew, x, size, at_once, threads):
    """The answer to ``x`` by the function for ``size`` rows, ``at_once`` calls at a time."""
    y = np.empty((len(x), *network.outputs[0].shape[1:]), np.float32)
    info = network.inputs[0].of_batch(size)

    def piece(start):
        (result,) = network.machines([any_tensor(info, x[start : start + size])], batch_entry(size))
        y[start : start + size] = array_of(result)

    crew.run((partial(piece, start) for start in range(0, len(x), size)), at_once, threads)
    return y


def whole(mod, threads):
    """The batch at once, and what would be chosen."""

    def plans(network, threads, records):
        return plan_layers(network, "native", None, threads, records)

    found = planned(mod, None, plans, threads)
    plan = found.plans if not found.batches else plans(prepare()(mod), threads, None)
    return driver.compile(mod, num_threads=threads, plan=plan), found


def ways(mod, parts, x, sizes, threads):
    """Every way to run ``x`` on ``threads`` threads, and the choice."""
    at_once, found = whole(mod, threads)
    session = at_once.session(1)
    crew = Crew()
    calls = {AT_ONCE: lambda: array_of(session(x))}
    for size in sizes:
        run = partial(in_pieces, parts, crew, x, size)
        calls[f"pieces of {size}"] = partial(run, 1, threads)
        beside = min(threads, len(x) // size)
        if beside > 1:
            calls[f"pieces of {size}, side by side"] = partial(run, beside, threads // beside)
    return calls, found


def measured(name, density, options):
    """Records of one network."""
    model = make_source(name, [density], [], SIZE, SEED).native[density]
    x = aligned_empty(TensorInfo("x", (options.batch, 3, SIZE, SIZE), "float32"))
    x[...] = images(options.batch, SIZE, SEED)
    mod = driver.import_torch(model, as_tensors(x))
    parts = driver.import_torch(model, as_tensors(x[:1]))
    parts = driver.compile(parts, num_threads=1, batches=options.pieces)
    for threads in options.threads:
        calls, found = ways(mod, parts, x, options.pieces, threads)
        use_threads(threads)
        answer = calls[AT_ONCE]()
        for way, call in calls.items():
            error = np.abs(call() - answer).max() / np.abs(answer).max()
            if error > TOLERANCE:
                raise SystemExit(f"{name}, {way}: off by {error:.1e} of the largest output")
        seconds = median_alternating(calls, options.turns)
        print(f"{name} {density:g}, {threads} threads: {found.choice}")
        for way, times in seconds.items():
            least, middle = 1e3 * min(times), 1e3 * statistics.median(times)
            print(f"  {way}: {least:.1f} ms, median {middle:.1f}", flush=True)
        yield {
            "network": name,
            "density": density,
            "batch": options.batch,
            "threads": threads,
            "choice": found.choice,
            "chosen_size": found.batches[0] if found.batches else options.batch,
            "seconds": seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--densities", nargs="+", type=float, default=[0.1])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pieces", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    autoload()
    use_threads(max(options.threads))  # TVM's pool cannot grow
    records = [
        record
        for name in options.networks
        for density in options.densities
        for record in measured(name, density, options)
    ]
    if options.out:
        about = {"machine": machine.machine(parse_target("native")), "versions": machine.versions()}
        options.out.write_text(json.dumps({**about, "runs": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
