"""What ``sparsewino bench layers`` and ``bench networks`` have in common: a race and its record."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .lists import numbers, texts

if TYPE_CHECKING:
    from ..bench.race import Effort

_QUICK_ROUNDS = 3


def add_arguments(parser: argparse.ArgumentParser, seconds: float) -> None:
    """What both take; a race ends after ``seconds`` if nothing else is said."""
    add = parser.add_argument
    add("--batch", type=numbers(int), default=[1, 16], help="batch sizes (default 1,16)")
    add("--threads", type=numbers(int), default=[1, 2], help="numbers of threads (default 1,2)")
    add(
        "--peers",
        type=texts,
        default=["all"],
        help='other engines: "all" (default), "none" or names',
    )
    add("--peers-at", type=Path, metavar="DIR", help="folder with the environments of the peers")
    add("--rounds", type=int, default=15, help="most turns of every contestant (default 15)")
    add(
        "--seconds",
        type=float,
        default=seconds,
        help=f"time after which a race ends (default {seconds:g})",
    )
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help='"wall" (default), or "cpu" time, for one thread, on a machine that others use',
    )
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="few rounds, for a first look")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="RECORD.jsonl",
        help="record to write, or to continue",
    )


def effort(arguments: argparse.Namespace, quick: float) -> Effort:
    """How long a race goes on; ``quick`` are the seconds of a first look."""
    from ..bench.race import Effort

    rounds, seconds = arguments.rounds, arguments.seconds
    if arguments.quick:
        rounds, seconds = _QUICK_ROUNDS, quick
    return Effort(rounds, seconds, arguments.clock)
