"""A batch at once, or in pieces: one compiled for the whole batch beside others called repeatedly.

    OMP_NUM_THREADS=1 python benchmarks/batch_pieces.py resnet50 --batch 16 --pieces 1,2,4

Maps of one image stay in the caches between layers, those of many do not; weights are read once per
call. One thread, CPU time, calls by turns; answers are compared first.
"""

from __future__ import annotations

import argparse

import numpy as np

from tvm_sparsewino import driver
from tvm_sparsewino.bench.network_models import images, make_source
from tvm_sparsewino.cli.lists import numbers
from tvm_sparsewino.nn.inference import as_tensors
from tvm_sparsewino.timing import fastest

SIZE, SEED = 224, 0
TOLERANCE = 1e-4  # of the largest output: plans may differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pieces", type=numbers(int), default=[1, 2, 4])
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()

    model = make_source(options.network, [options.density], [], SIZE, SEED).native[options.density]
    x = images(options.batch, SIZE, SEED)
    whole = driver.compile(driver.import_torch(model, as_tensors(x)), num_threads=1)
    one = driver.import_torch(model, as_tensors(x[:1]))
    networks = {"at once": whole}
    for size in options.pieces:
        networks[f"pieces of {size}"] = driver.compile(one, num_threads=1, batches=(size,))
    answer = whole(x)
    for name, network in networks.items():
        error = np.abs(network(x) - answer).max() / np.abs(answer).max()
        if error > TOLERANCE:
            raise SystemExit(f"{name}: off by {error:.1e} of the largest output")
    calls = {name: lambda network=network: network(x) for name, network in networks.items()}
    for name, seconds in fastest(calls, options.turns).items():
        print(f"{options.network} {options.density:g} {name}: {1e3 * seconds:.1f} ms")


if __name__ == "__main__":
    main()
