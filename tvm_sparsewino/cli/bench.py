"""``sparsewino bench``: our kernels and their peers, measured on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELP = "measure single layers beside other engines on this machine"

_NETWORKS = "vgg16,resnet18,resnet50,ffdnet"
_DENSITIES = "0.1,1,0.5,0.3,0.2,0.05,0.02"
_WIDTH = 200  # characters of a line that is no terminal's
_QUICK = {"rounds": 3, "seconds": 2.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes: a subcommand and its options."""
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    layers = commands.add_parser("layers", help="measure 3x3 layers; prints the report")
    _layer_arguments(layers)
    layers.set_defaults(what=_layers)
    report = commands.add_parser("report", help="print the report of a record")
    report.add_argument("record", type=Path, metavar="RECORD.jsonl")
    report.set_defaults(what=_report)
    for command in (layers, report):
        # SUPPRESS: the parser above has the default, which this one must not write over.
        command.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show where an error arose",
        )
        command.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the record, too")
        command.add_argument(
            "--figures", type=Path, metavar="FILE.json", help="write the summary, too"
        )
        command.add_argument(
            "--statistic",
            choices=("ms", "fastest"),
            default="ms",
            help='what counts of a time: "ms", the median (default), or "fastest"',
        )


def _layer_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--network", type=_texts, default=_texts(_NETWORKS), help=f"default {_NETWORKS}")
    add("--layers", type=_texts, default=[], help="only these, such as 64>64@56x56")
    add("--min-channels", type=int, default=32, help="input channels at least (default 32)")
    add("--density", type=_numbers(float), default=_numbers(float)(_DENSITIES))
    add(
        "--tile",
        type=_texts,
        default=_texts("2,4,6"),
        help='out of 2, 4, 6 (default all), or "best", the cost model\'s choice',
    )
    add("--batch", type=_numbers(int), default=[1, 16], help="default 1,16")
    add("--threads", type=_numbers(int), default=[1, 2], help="default 1,2")
    add("--structure", default="unstructured", help="pattern of the zeros")
    add("--peers", type=_texts, default=["all"], help='"all" (default), "none" or names')
    add("--peers-at", type=Path, metavar="DIR", help="environments of the peers")
    add("--rounds", type=int, default=15, help="turns of every contestant, at most")
    add("--seconds", type=float, default=8.0, help="of a race, after which it ends")
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help='"cpu": for one thread only, where others use the machine',
    )
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="a first look: few rounds")
    add("--out", type=Path, required=True, metavar="RECORD.jsonl", help="added to, and continued")


def run(arguments: argparse.Namespace) -> None:
    """Run the subcommand."""
    arguments.what(arguments)


def _texts(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _numbers(kind: type) -> Callable[[str], list[Any]]:
    """Reads numbers of ``kind`` with commas between; argparse reports what is none."""

    def read(text: str) -> list[Any]:
        values = [kind(part) for part in _texts(text)]
        if not values or min(values) <= 0:
            raise argparse.ArgumentTypeError(f"expected positive numbers, got {text!r}")
        return values

    read.__name__ = f"list of {kind.__name__}"  # what argparse calls it
    return read


def _layers(arguments: argparse.Namespace) -> None:
    from ..bench.contestants import Settings, parse_tiles
    from ..bench.peers import choose_peers, default_folder
    from ..bench.race import Effort
    from ..bench.run import Request, run_layers
    from ..bench.shapes import select

    limits = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    limits |= _QUICK if arguments.quick else {}
    request = Request(
        layers=select(arguments.network, arguments.layers, arguments.min_channels),
        batches=arguments.batch,
        threads=arguments.threads,
        settings=Settings(
            parse_tiles(arguments.tile),
            tuple(arguments.density),
            arguments.structure,
            arguments.seed,
        ),
        peers=choose_peers(arguments.peers),
        folder=arguments.peers_at or default_folder(),
        effort=Effort(clock=arguments.clock, **limits),
        out=arguments.out,
    )
    run_layers(request, say=lambda text: print(text, flush=True))
    _show(arguments.out, arguments)


def _report(arguments: argparse.Namespace) -> None:
    _show(arguments.record, arguments)


def _show(record: Path, arguments: argparse.Namespace) -> None:
    """Print the report; write plot and summary where asked to."""
    import json

    from rich.console import Console

    from ..bench.figures import summarise
    from ..bench.plot import draw
    from ..bench.records import races, read_lines
    from ..bench.report import stage_table, summary_lines, tables
    from ..files import replacing

    measured = races(read_lines(record))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)  # nothing to fit into
    for table in (*tables(measured, arguments.statistic), stage_table(measured)):
        console.print(table)
    for line in summary_lines(measured, arguments.statistic):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if arguments.figures:
        with replacing(arguments.figures) as beside:
            text = json.dumps(summarise(measured, arguments.statistic), indent=1)
            beside.write_text(text + "\n")
    if arguments.plot:
        with replacing(arguments.plot) as beside:
            draw(measured, beside, arguments.statistic)
