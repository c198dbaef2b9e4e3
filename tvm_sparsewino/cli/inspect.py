"""``sparsewino inspect``: what a compiled network does, read without loading it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HELP = "print the plan of a compiled network, and where its time goes"
_LONGEST = 5  # layers that are named as taking most time, and
_LISTED = 8  # those that are named for a reason


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("network", type=Path, metavar="MODEL.so")
    parser.add_argument("--json", action="store_true", help="print everything, as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Print the plan as a table, or the whole description as JSON."""
    from ..artefact import read_description

    description = read_description(arguments.network)
    if arguments.json:
        print(json.dumps(description.to_json(), indent=1))
        return
    from rich.console import Console

    console = Console()
    console.print(_summary(description), highlight=False, markup=False)
    for batch, plan in description.plans().items():
        title = "layers" if batch is None else f"layers, batch {batch}"
        for line in (*_work(plan, title), *where_time_goes(plan)):
            console.print(line, highlight=False, markup=False)
        console.print(plan_table(plan, title))


def _summary(description: Any) -> str:
    lines = [f"target {description.target}, needs {', '.join(description.features) or 'nothing'}"]
    lines += [f"input {info.name}: {info}" for info in description.inputs]
    lines += [f"output {info.name}: {info}" for info in description.outputs]
    if description.choice:
        lines.append(description.choice)
    elif description.batches:
        sizes = ", ".join(map(str, description.batches))
        lines.append(f"any batch, put together from kernels for batches {sizes}")
    return "\n".join(lines)


def _work(plan: Sequence[Any], what: str) -> list[str]:
    done, direct = (sum(getattr(p, n) for p in plan) for n in ("flops_done", "flops_direct"))
    if not done:
        return []
    fewer = f"{direct / done:.1f}x fewer"
    return [f"{what}: {direct / 1e9:.2f} GFLOP direct, {done / 1e9:.2f} done, {fewer}"]


def where_time_goes(plan: Sequence[Any]) -> list[str]:
    """The time that is predicted, who takes most of it, and what keeps layers from being faster."""
    total = sum(layer.cost_cycles for layer in plan)
    lines = []
    if total:
        longest = sorted(plan, key=lambda layer: -layer.cost_cycles)[:_LONGEST]
        listed = ", ".join(f"{x.name!r} {x.cost_cycles / total:.0%}" for x in longest)
        lines.append(f"predicted: {total / 1e6:.4g} Mcycles of all layers; most in {listed}")
    for what, chosen in (
        ("no kernel, left as they are", [x for x in plan if x.algorithm == "left"]),
        ("dense since they have no zeros", [x for x in plan if _is_dense(x) and x.density == 1]),
        (
            "dense though they have zeros, since that is faster",
            [x for x in plan if _is_dense(x) and x.density < 1],
        ),
    ):
        if chosen:
            share = sum(x.cost_cycles for x in chosen) / total if total else 0
            names = ", ".join(x.name for x in chosen[:_LISTED])
            more = f" and {len(chosen) - _LISTED} more" if len(chosen) > _LISTED else ""
            lines.append(f"{what}: {len(chosen)} layers, {share:.0%} of it: {names}{more}")
    return lines


def _is_dense(layer: Any) -> bool:
    return layer.algorithm.startswith("dense")


def plan_table(plan: Sequence[Any], title: str = "layers") -> Any:
    """The plan as a rich table, one row per convolution."""
    from rich.table import Table

    table = Table(title=title)
    table.add_column("layer", no_wrap=True)
    for name in (
        "shape",
        "density",
        "algorithm",
        "m",
        "panel",
        "GFLOP",
        "done",
        "saved",
        "Mcycles",
        "share",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why")
    total = sum(layer.cost_cycles for layer in plan)
    for layer in plan:
        table.add_row(*_row(layer, total))
    return table


def _row(layer: Any, total: float) -> tuple[str, ...]:
    left, convolves = layer.algorithm == "left", hasattr(layer, "conv")
    saved = layer.flops_direct / layer.flops_done if layer.flops_done else 0
    return (
        layer.name,
        _shape(layer),
        f"{layer.density:.1%}",
        layer.algorithm,
        str(layer.m) if convolves and not left else "",
        _panel(layer) if convolves and not left else "",
        f"{layer.flops_direct / 1e9:.3f}",
        f"{layer.flops_done / 1e9:.3f}",
        f"{saved:.1f}x" if saved and not left else "",
        "" if left else f"{layer.cost_cycles / 1e6:.3g}",
        "" if left or not total else f"{layer.cost_cycles / total:.1%}",
        layer.reason,
    )


def _panel(layer: Any) -> str:
    """Vectors of a panel, and their lanes where registers have more: ``9 x 8``; whether copied."""
    lanes = f" x {layer.lanes}" if layer.lanes else ""
    return f"{layer.panel_vectors}{lanes}{' copied' * layer.copied}"


def _shape(layer: Any) -> str:
    """Such as ``96>96 3x3 212x320``, with batch, groups and steps where they are not 1; of linear
    layers such as ``512>1000``; "" when unknown.
    """
    linear, conv = getattr(layer, "linear", None), getattr(layer, "conv", None)
    if linear is not None:
        return f"{f'{linear.n}x ' if linear.n > 1 else ''}{linear.c}>{linear.k}"
    if conv is None:
        return ""
    batch = f"{conv.n}x " if conv.n > 1 else ""
    groups = f" /{conv.groups}" if conv.groups > 1 else ""
    step = f" /{_times(conv.stride)}" if conv.stride != (1, 1) else ""
    step += f" dilation {_times(conv.dilation)}" if conv.dilation != (1, 1) else ""
    return f"{batch}{conv.c}>{conv.k}{groups} {conv.r}x{conv.s}{step} {conv.h}x{conv.w}"


def _times(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"
