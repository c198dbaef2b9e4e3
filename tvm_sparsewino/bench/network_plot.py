"""Milliseconds of networks as groups of bars, a panel per batch and number of threads."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from ..extras import require
from .network_figures import NetworkRaces
from .network_report import contestants

_WIDTH = 0.8  # of a group


def draw_networks(races: NetworkRaces, path: Path, statistic: str) -> None:
    """Write a picture of all races; times relative to the slowest of each, milliseconds on top.

    Raises:
        ConfigError: there are no races.
        MissingExtra: matplotlib is not installed.
    """
    if not races:
        raise ConfigError("nothing to draw: the record has no race of networks")
    require("matplotlib", "bench")
    from matplotlib.figure import Figure

    names = contestants(races)
    places = sorted({(key.batch, key.threads) for key in races})
    figure = Figure(figsize=(12, 3.4 * len(places)), layout="constrained")
    axes = figure.subplots(len(places), 1, squeeze=False).ravel()
    for axis, (batch, threads) in zip(axes, places, strict=True):
        here = {k: r for k, r in races.items() if (k.batch, k.threads) == (batch, threads)}
        by_race = [{r["name"]: r[statistic] for r in race["results"]} for race in here.values()]
        for number, name in enumerate(names):
            shift = (number + 0.5) / len(names) * _WIDTH - _WIDTH / 2
            at = [i for i, times in enumerate(by_race) if name in times]
            heights = [by_race[i][name] / max(by_race[i].values()) for i in at]
            bars = axis.bar([i + shift for i in at], heights, _WIDTH / len(names), label=name)
            labels = [f"{by_race[i][name]:.3g}" for i in at]
            axis.bar_label(bars, labels, fontsize=6, rotation=90, padding=2)
        axis.set_xticks(range(len(here)), [key.network for key in here])
        axis.set(ylabel="time, slowest = 1", ylim=(0, 1.25))
        axis.set_title(f"batch {batch}, {threads} thread{'s' * (threads > 1)} (ms on the bars)")
    axes[0].legend(ncols=len(names), fontsize=7, loc="upper center")
    figure.savefig(path, dpi=110)
