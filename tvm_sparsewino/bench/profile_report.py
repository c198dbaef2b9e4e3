"""A profile for people: a table, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ..extras import require
from ..profile import NetworkTime
from .profile_figures import Row

_COLUMNS = ("kernel", "output", "ms", "share", "predicted", "floor", "of floor", "GFLOP", "MB")
_MOST_BARS = 40


def profile_table(every: Sequence[Row], most: int | None = None) -> Table:
    """One row per kernel call, in the order they run; only the ``most`` longest if given."""
    table = Table(title="kernels, ms" if most is None else f"the {most} longest kernels, ms")
    table.add_column("layer", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "kernel" else "right", no_wrap=True)
    for row in every if most is None else longest(every, most):
        table.add_row(
            row.layer,
            row.kernel,
            "x".join(map(str, row.output)),
            f"{row.ms:.3f}",
            f"{row.share:.1%}",
            "" if row.predicted_ms is None else f"{row.predicted_ms:.3f}",
            f"{row.floor_ms:.3f}",
            f"{row.of_floor:.0%}",
            f"{row.gflops:.3f}" if row.gflops else "",
            f"{row.moved / 1e6:.2f}",
        )
    return table


def longest(every: Sequence[Row], most: int) -> list[Row]:
    """The ``most`` longest, longest first."""
    return sorted(every, key=lambda row: -row.ms)[:most]


def profile_lines(measured: NetworkTime, every: Sequence[Row], far: Sequence[Row]) -> list[str]:
    """The whole network in a few sentences."""
    kernels = sum(row.ms for row in every)
    predicted = sum(row.predicted_ms or 0 for row in every)
    known = sum(row.ms for row in every if row.predicted_ms is not None)
    lines = [
        f"a call: {1e3 * measured.median:.3f} ms, median of {len(measured.seconds)}; "
        f"its {len(every)} kernels, each with a clock around it: {kernels:.3f} ms",
        f"planned layers: {known:.3f} ms, predicted {predicted:.3f} ms",
    ]
    for row in far:
        lines.append(
            f"far from its floor: {row.layer or row.kernel}: {row.share:.1%} of the time, "
            f"{row.of_floor:.0%} of the floor"
        )
    if not far:
        lines.append("no kernel of more than 1 % of the time is below 25 % of its floor")
    return lines


def draw_profile(every: Sequence[Row], path: Path, title: str) -> None:
    """Write a picture: a bar per kernel call in the order they run, its floor and its prediction.

    Of a network with very many kernels the longest are drawn.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "bench")
    from matplotlib.figure import Figure

    kept = {id(row) for row in longest(every, _MOST_BARS)}
    shown = [row for row in every if id(row) in kept]
    figure = Figure(figsize=(9, 1 + 0.22 * len(shown)), layout="constrained")
    axis = figure.subplots()
    at = list(range(len(shown)))
    colours = ["tab:blue" if row.layer else "tab:gray" for row in shown]
    axis.barh(at, [row.ms for row in shown], color=colours, label="measured")
    axis.barh(at, [row.floor_ms for row in shown], 0.3, color="tab:orange", label="floor")
    known = [i for i in at if shown[i].predicted_ms is not None]
    predicted = [shown[i].predicted_ms for i in known]
    axis.plot(predicted, known, "k|", ms=8, label="predicted")
    axis.set_yticks(at, [row.layer or row.kernel for row in shown], fontsize=7)
    axis.invert_yaxis()
    axis.set(xlabel="ms", title=title)
    axis.legend()
    figure.savefig(path, dpi=110)
