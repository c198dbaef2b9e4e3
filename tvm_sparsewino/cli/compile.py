"""``sparsewino compile``: a network to a shared library."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import models

HELP = "compile an exported PyTorch program (.pt2), an ONNX file, or FFDNet, to a shared library"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    models.add_arguments(parser)
    models.add_batches(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.so")
    parser.add_argument(
        "--dump-ir", type=Path, metavar="DIR", help="write the module to DIR after every phase"
    )
    parser.add_argument(
        "--records",
        type=Path,
        metavar="FILE.jsonl",
        help="use these measurements of sparsewino tune",
    )
    models.add_threads(parser)


def run(arguments: argparse.Namespace) -> None:
    """Compile and save; print one line per file written, and how many records were of use."""
    from .. import driver

    exe = driver.compile(
        models.load(arguments),
        arguments.target,
        models.config(arguments),
        arguments.threads,
        dump_dir=arguments.dump_ir,
        records=arguments.records,
        batches=arguments.batch,
    )
    exe.save(arguments.output)
    for batch, plan in exe.description.plans().items():
        of_batch = "" if batch is None else f", batch {batch}"
        print(
            f"{arguments.output}: {_ours(plan)} of {len(plan)} layers run on our kernels{of_batch}"
        )
    if arguments.records:
        used = sum("ms, the fastest of" in p.reason for p in exe.plan)
        print(f"{arguments.records}: holds for {used} of {_ours(exe.plan)} of them")


def _ours(plan: Sequence[Any]) -> int:
    return sum(layer.algorithm != "left" for layer in plan)
