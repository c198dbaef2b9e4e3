"""``sparsewino bench``: our kernels and their peers, measured on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from . import bench_model, bench_networks, bench_race
from .lists import numbers, texts

HELP = "measure a network, or layers and networks beside other engines, on this machine"

MODEL = "model"
SUBCOMMANDS = ("layers", "networks", "report", MODEL)
_NETWORKS = "vgg16,resnet18,resnet50,ffdnet"
_DENSITIES = "0.1,1,0.5,0.3,0.2,0.05,0.02"
_WIDTH = 200  # characters of a line that is no terminal's
_SECONDS, _QUICK_SECONDS = 8.0, 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes: a subcommand and its options."""
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    layers = commands.add_parser("layers", help="measure 3x3 layers; prints the report")
    _layer_arguments(layers)
    layers.set_defaults(what=_layers)
    networks = commands.add_parser("networks", help="measure whole networks; prints the report")
    bench_networks.add_arguments(networks)
    networks.set_defaults(what=_networks)
    report = commands.add_parser("report", help="print the report of a record")
    report.add_argument("record", type=Path, metavar="RECORD.jsonl")
    report.set_defaults(what=_report)
    model = commands.add_parser(
        MODEL, help=f'measure one network ("{MODEL}" may be left out), with --profile its kernels'
    )
    bench_model.add_arguments(model)
    model.set_defaults(what=bench_model.run)
    _verbose(model)
    for command in (layers, networks, report):
        _verbose(command)
        command.add_argument(
            "--plot", type=Path, metavar="FILE.png", help="also draw the record to this file"
        )
        command.add_argument(
            "--figures", type=Path, metavar="FILE.json", help="also write the summary to this file"
        )
        command.add_argument(
            "--statistic",
            choices=("ms", "fastest"),
            default="ms",
            help='which time counts: "ms", the median (default), or "fastest", the fastest call',
        )


def _verbose(command: argparse.ArgumentParser) -> None:
    # SUPPRESS: the parser above has the default, which this one must not write over.
    command.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show where an error arose",
    )


def normalised(arguments: Sequence[str]) -> list[str]:
    """The arguments with the subcommand that is meant where they begin with a network."""
    first = arguments[0] if arguments else ""
    known = first in (*SUBCOMMANDS, "") or first.startswith("-")
    return list(arguments) if known else [MODEL, *arguments]


def _layer_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--network", type=texts, default=texts(_NETWORKS), help=f"networks (default {_NETWORKS})")
    add("--layers", type=texts, default=[], help="only these layers, such as 64>64@56x56")
    add("--min-channels", type=int, default=32, help="fewest input channels (default 32)")
    add(
        "--density",
        type=numbers(float),
        default=numbers(float)(_DENSITIES),
        help=f"shares of nonzeros (default {_DENSITIES})",
    )
    add(
        "--tile",
        type=texts,
        default=texts("2,4,6"),
        help='tiles out of 2, 4, 6 (default all), or "best", the cost model\'s choice',
    )
    add("--structure", default="unstructured", help="pattern of the zeros")
    bench_race.add_arguments(parser, _SECONDS)


def run(arguments: argparse.Namespace) -> None:
    """Run the subcommand."""
    arguments.what(arguments)


def _layers(arguments: argparse.Namespace) -> None:
    from ..bench.contestants import Settings, parse_tiles
    from ..bench.peers import choose_peers, default_folder
    from ..bench.run import Request, run_layers
    from ..bench.shapes import select

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
        effort=bench_race.effort(arguments, _QUICK_SECONDS),
        out=arguments.out,
    )
    run_layers(request, say=lambda text: print(text, flush=True))
    _show(arguments.out, arguments)


def _networks(arguments: argparse.Namespace) -> None:
    bench_networks.run(arguments)
    _show(arguments.out, arguments)


def _report(arguments: argparse.Namespace) -> None:
    _show(arguments.record, arguments)


def _show(record: Path, arguments: argparse.Namespace) -> None:
    """Print the report of what the record holds; write plot and summary where asked to."""
    from ..bench import figures, network_figures, network_plot, network_report, plot, report
    from ..bench.network_records import network_races
    from ..bench.records import races, read_lines

    lines, statistic = read_lines(record), arguments.statistic
    networks = network_races(lines)
    if networks:
        _print(
            network_report.network_tables(networks, statistic),
            network_report.network_summary(networks, statistic),
        )
        summary = network_figures.summarise_networks(networks, statistic)
        _write(
            arguments, summary, lambda path: network_plot.draw_networks(networks, path, statistic)
        )
        return
    layers = races(lines)
    tables = (*report.tables(layers, statistic), report.stage_table(layers))
    _print(tables, report.summary_lines(layers, statistic))
    summary = figures.summarise(layers, statistic)
    _write(arguments, summary, lambda path: plot.draw(layers, path, statistic))


def _print(tables: Iterable[Any], lines: Iterable[str]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)  # nothing to fit into
    for table in tables:
        console.print(table)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _write(
    arguments: argparse.Namespace, summary: dict[str, Any], draw: Callable[[Path], None]
) -> None:
    """Summary and plot to the files that were asked for."""
    import json

    from ..files import replacing

    if arguments.figures:
        with replacing(arguments.figures) as beside:
            beside.write_text(json.dumps(summary, indent=1) + "\n")
    if arguments.plot:
        with replacing(arguments.plot) as beside:
            draw(beside)
