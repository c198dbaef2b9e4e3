"""``sparsewino bench MODEL``: one network on this machine, kernel by kernel if asked to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import models

_WIDTH = 200  # characters of a line that is no terminal's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    models.add_arguments(parser)
    models.add_threads(parser)
    add = parser.add_argument
    add("--records", type=Path, metavar="FILE", help="use these measurements of sparsewino tune")
    add("--batch", type=int, metavar="N", help="batch size to measure, if the batch is open")
    add("--runs", type=int, default=30, help="number of measured calls (default 30)")
    add("--profile", action="store_true", help="also time every kernel")
    add("--all", action="store_true", help="show all kernels, not only the 30 longest")
    add("--json", type=Path, metavar="FILE.json", help="also write the profile to this file")
    add("--plot", type=Path, metavar="FILE.png", help="also draw the profile to this file")
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help='"wall" (default), or "cpu" time, for one thread, on a machine that others use',
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure; print what was found."""
    import json

    from rich.console import Console

    from ..bench import profile_figures, profile_report
    from ..bench.profile_run import machine_limits, profile_network
    from ..files import replacing

    exe = _executable(arguments)
    measured = profile_network(exe, arguments.runs, arguments.clock, batch=arguments.batch)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)  # nothing to fit into
    if not (arguments.profile or arguments.json or arguments.plot):
        seconds = sorted(measured.seconds)
        console.print(
            f"a call: {1e3 * measured.median:.3f} ms, median of {len(seconds)}, "
            f"{exe.num_threads} threads; fastest {1e3 * seconds[0]:.3f}",
            highlight=False,
        )
        return
    limits = machine_limits(exe)
    every = profile_figures.rows(measured, limits)
    console.print(profile_report.profile_table(every, None if arguments.all else _SHOWN))
    far = profile_figures.far_from_floor(every)
    for line in profile_report.profile_lines(measured, every, far):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if arguments.json:
        with replacing(arguments.json) as beside:
            report = profile_figures.to_json(measured, every, limits)
            beside.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.plot:
        title = f"{Path(arguments.model).name}, {exe.num_threads} threads"
        with replacing(arguments.plot) as beside:
            profile_report.draw_profile(every, beside, title)


_SHOWN = 30


def _executable(arguments: argparse.Namespace) -> Any:
    """The compiled file, or the network compiled now."""
    from .. import driver

    if Path(arguments.model).suffix == ".so":
        return driver.load(arguments.model, arguments.threads)
    return driver.compile(
        models.load(arguments),
        target=arguments.target,
        config=models.config(arguments),
        num_threads=arguments.threads,
        records=arguments.records,
        batches=(arguments.batch,) if arguments.batch else None,
    )
