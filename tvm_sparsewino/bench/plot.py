"""Effective GFLOP/s over density, a panel per layer, peers as lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..extras import require
from .figures import Races, ours
from .peers import PEERS
from .records import RaceKey

_COLUMNS = 4
_TILE_COLOURS = {2: "tab:blue", 4: "tab:orange", 6: "tab:green"}
_PEER_COLOURS = ("tab:brown", "tab:purple", "tab:pink", "tab:olive", "tab:cyan", "tab:gray")


def draw(races: Races, path: Path, statistic: str, batch: int = 1, threads: int = 1) -> None:
    """Write a picture of the races with this batch and number of threads.

    "Effective" counts the FLOPs of the direct dense convolution. The black line is the core's
    measured multiply-add peak, which no dense direct kernel can pass; "floor" is what the sparse
    kernel would reach if every stage ran at its floor.

    Raises:
        ConfigError: there are no such races.
        MissingExtra: matplotlib is not installed.
    """
    chosen = {key: r for key, r in races.items() if (key.batch, key.threads) == (batch, threads)}
    if not chosen:
        raise ConfigError(f"nothing to draw: no race with batch {batch} and {threads} threads")
    require("matplotlib", "bench")
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (key, race) in zip(axes, chosen.items(), strict=False):
        _panel(axis, key, race, statistic)
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()
    handles: dict[str, Any] = {}
    for axis in axes[: len(chosen)]:
        lines, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2 * columns)
    figure.suptitle(f"batch {batch}, {threads} thread{'s' * (threads > 1)}")
    figure.savefig(path, dpi=110)


def _panel(axis: Any, key: RaceKey, race: Mapping[str, Any], statistic: str) -> None:
    gflop = race["direct_flops"] / 1e6  # over milliseconds
    every = ours(race, statistic)
    for m in sorted({m for m, _ in every}):
        points = sorted((d, gflop / ms) for (tile, d), ms in every.items() if tile == m)
        axis.plot(
            *zip(*points, strict=True), marker="o", ms=3, color=_TILE_COLOURS[m], label=f"F({m},3)"
        )
    by_name = {result["name"]: result for result in race["results"]}
    for peer, colour in zip(PEERS, _PEER_COLOURS, strict=True):
        if peer.name in by_name:
            value = gflop / by_name[peer.name][statistic]
            axis.axhline(value, color=colour, ls="--", lw=1, label=peer.name)
    floors = sorted(
        (result["asked_density"], gflop / _floor(result["stages"]))
        for result in race["results"]
        if "stages" in result
    )
    if floors:
        axis.plot(*zip(*floors, strict=True), color="tab:red", ls=":", marker="_", label="floor")
    if key.threads == 1:
        axis.axhline(race["run"]["peak_gflops"], color="black", lw=1, label="multiply-add peak")
    axis.set(
        xscale="log",
        yscale="log",
        title=str(key.layer),
        xlabel="density",
        ylabel="effective GFLOP/s",
    )


def _floor(stages: Mapping[str, Mapping[str, float]]) -> float:
    return sum(values["ms"] * values["share_of_floor"] for values in stages.values())
