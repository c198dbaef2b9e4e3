"""``sparsewino tune``: measure how every convolution of a network runs fastest."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import models

HELP = "measure the candidate kernels of every convolution, for compile --records"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    models.add_arguments(parser)
    models.add_batches(parser)
    parser.add_argument(
        "--records",
        type=Path,
        required=True,
        metavar="FILE.jsonl",
        help="file to append one line per convolution to",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="time for each distinct convolution (default 30)",
    )
    models.add_threads(parser)
    remote = parser.add_argument_group("measuring on another machine")
    remote.add_argument("--rpc-tracker", metavar="HOST:PORT", help="address of TVM's RPC tracker")
    remote.add_argument(
        "--rpc-key", metavar="KEY", help="key under which the machine is registered"
    )


def run(arguments: argparse.Namespace) -> None:
    """Tune; print a row per convolution as it is done."""
    from rich.console import Console
    from rich.live import Live

    from .. import driver

    module = models.load(arguments)
    table = _table()
    with Live(table, console=Console(), auto_refresh=False) as live:

        def report(layer: Any, found: Any) -> None:
            table.add_row(*_row(layer, found))
            live.refresh()

        records = driver.tune(
            module,
            arguments.records,
            arguments.target,
            models.config(arguments),
            arguments.threads,
            arguments.budget,
            arguments.rpc_tracker,
            arguments.rpc_key,
            report,
            arguments.batch,
        )
    print(f"{arguments.records}: {len(records)} records added")


def _table() -> Any:
    from rich.table import Table

    table = Table(title="measured")
    table.add_column("layer", no_wrap=True)
    for name in ("plans", "fastest", "blocking", "ms", "model's ms", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _row(layer: Any, found: Any) -> tuple[str, ...]:
    more = f" and {len(layer.names) - 1} alike" if len(layer.names) > 1 else ""
    plan = found.plan
    sizes = (plan.panel_vectors, plan.k_block, plan.channel_block, plan.rows_at_once)
    return (
        layer.names[0] + more,
        str(found.candidates),
        plan.algorithm + f" m={plan.m}" * bool(plan.m) + f" lanes={plan.lanes}" * bool(plan.lanes),
        "/".join(map(str, sizes)),
        f"{found.seconds * 1e3:.4g}",
        f"{found.model_seconds * 1e3:.4g}",
        f"{found.model_seconds / found.seconds:.2f}x",
    )
