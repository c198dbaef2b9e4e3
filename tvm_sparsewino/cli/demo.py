"""``sparsewino demo``: the pruned denoiser against the dense one, measured on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "measure quality, speed and memory of a pruned image denoiser"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), metavar="DIR", help="default: out/demo"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="pruned FFDNet; default: the package's own"
    )
    parser.add_argument("--target", default="native", help='default: "native", this machine')


def run(arguments: argparse.Namespace) -> None:
    """Measure; print the results as tables and the folder that has them."""
    from rich.console import Console

    from ..extras import require

    demo = require("tvm_sparsewino.demo.run", "demo")
    report = require("tvm_sparsewino.demo.report", "demo")
    console = Console()
    weights = {"weights": arguments.weights} if arguments.weights else {}
    measured = demo.run_demo(arguments.out, target=arguments.target, console=console, **weights)
    for table in report.tables(measured):
        console.print(table)
    console.print(f"Report, pictures and compiled networks are in {arguments.out}")
