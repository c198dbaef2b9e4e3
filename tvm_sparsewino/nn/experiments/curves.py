"""Curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...extras import require
from ...files import replacing


def draw_curves(record: Mapping[str, Any], path: Path) -> None:
    """Loss, test accuracy and sparsity over the steps of both phases, as PNG.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure_of = require("matplotlib.figure", "train").Figure
    figure = figure_of(figsize=(8, 6), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    start = 0
    for phase, rows in record["curves"].items():
        for panel, name in zip(panels, ("loss", "accuracy", "sparsity"), strict=True):
            known = _points(rows, start, name)
            if known:
                panel.plot(*zip(*known, strict=True), marker=".", label=phase)
        start += rows[-1]["step"] if rows else 0
    for panel, name in zip(
        panels, ("training loss", "test accuracy, %", "share of zeros"), strict=True
    ):
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend()
    panels[-1].set_xlabel("step")
    e = record["experiment"]
    figure.suptitle(
        f"{e['network']}, {e['data']}, {e['prune']['method']} at {e['prune']['sparsity']:.0%}, "
        f"seed {e['seed']}"
    )
    with replacing(path) as beside:
        figure.savefig(beside, format="png")


def _points(rows: list[Mapping[str, Any]], start: int, name: str) -> list[tuple[int, float]]:
    """Step, counted from ``start``, and figure, of the rows that have it."""
    return [(start + row["step"], row[name]) for row in rows if row.get(name) is not None]
