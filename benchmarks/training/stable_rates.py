"""The largest stable learning rate of every pruning method, from one dense network.

    python benchmarks/training/stable_rates.py --out DIR [--record FILE] [--steps 100]
        [--start 1e-6] [--set data=fashion-mnist --set network=small-resnet ...] [METHOD ...]

The rate is doubled from ``--start`` until training diverges; the dense network is trained first, in
DIR.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tvm_sparsewino.files import replacing
from tvm_sparsewino.nn.experiments import read_experiment
from tvm_sparsewino.nn.experiments.methods import METHODS
from tvm_sparsewino.nn.experiments.stability import stable_rates


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--start", type=float, default=1e-6, help="first rate (default 1e-6)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(words)
    if args.record is not None:  # found out before hours of training
        args.record.parent.mkdir(parents=True, exist_ok=True)
    methods = args.methods or ("activation", "white", "gradient", "authors")
    experiment = read_experiment(None, args.set)
    rows = stable_rates(experiment, methods, args.out, args.start, steps=args.steps)
    for row in rows:
        print(f"{row['method']:15} {row['rate']:g}" + ("" if row["bounded"] else " or more"))
    if args.record is not None:
        with replacing(args.record) as beside:
            beside.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
