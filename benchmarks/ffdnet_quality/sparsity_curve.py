"""PSNR over sparsity and tile, one-shot pruning only; appends to one_shot.jsonl.

python benchmarks/ffdnet_quality/sparsity_curve.py --tiles 2 4 6 --sparsities 0.6 0.7 0.8 0.9 0.95
"""

import argparse
import copy
import json
import time
from pathlib import Path

import torch

from tvm_sparsewino import host
from tvm_sparsewino.config import BUDGETS
from tvm_sparsewino.demo.images import PHOTOS, photo, psnr, with_noise
from tvm_sparsewino.nn import convert, prune_one_shot
from tvm_sparsewino.nn.calibration import winograd_layers
from tvm_sparsewino.nn.models import load_ffdnet
from tvm_sparsewino.nn.patches import NoisyPatches, load_photos

HERE = Path(__file__).parent


def measure(model, sigma=25):
    values = []
    for name in PHOTOS:
        clean = photo(name)
        with torch.no_grad():
            out = model(torch.from_numpy(with_noise(clean, sigma)), sigma / 255)
        values.append(round(psnr(out.numpy(), clean), 3))
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.6, 0.7, 0.8, 0.9, 0.95])
    parser.add_argument("--patches", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--budget", choices=BUDGETS, default="layer")
    parser.add_argument("--out", type=Path, default=HERE / "one_shot.jsonl")
    args = parser.parse_args()
    dense = load_ffdnet()
    source = NoisyPatches(load_photos(), 96, seed=1)
    batches = [source.batch(i, 4)[1:] for i in range(args.patches // 4)]
    for tile in args.tiles:
        base = convert(dense, tile)
        for end in (0, -1):
            base.model[end] = copy.deepcopy(dense.model[end])
        for sparsity in args.sparsities:
            start, cpu = time.monotonic(), time.process_time()
            model = prune_one_shot(
                base, batches, sparsity, budget=args.budget, iterations=args.iterations
            )
            seconds, cpu = time.monotonic() - start, time.process_time() - cpu
            layers = winograd_layers(model).values()
            zeros = sum(int((x.winograd_weight == 0).sum()) for x in layers)
            count = sum(x.weight.numel() for x in layers)
            record = {
                "tile": tile,
                "sparsity": zeros / count,
                "multiplications_per_output": (tile + 2) ** 2 / tile**2 * (1 - zeros / count),
                "psnr": measure(model),
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu, 1),
                "budget": args.budget,
                "patches": args.patches,
                "iterations": args.iterations,
                "threads": torch.get_num_threads(),
                "machine": host.processor(),
            }
            print(record, flush=True)
            with args.out.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
