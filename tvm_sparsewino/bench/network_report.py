"""A record of networks for people: times, memory, compiling; then the ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from .network_contestants import NETWORK_PEERS
from .network_figures import NetworkRaces, figures

_BUSY = 0.5  # load beside the benchmark's own


def network_tables(races: NetworkRaces, statistic: str) -> Iterator[Table]:
    """Milliseconds, then peak memory, of everyone in every race."""
    names = contestants(races)
    yield _table(f"ms per call, {statistic}", races, names, lambda r: f"{r[statistic]:.2f}")
    yield _table("peak memory of the process, MiB", races, names, _peak)
    ours = [name for name in names if name.startswith("ours ")]
    yield _table("seconds to compile", races, ours, lambda r: f"{r['compile_seconds']:.0f}")


def contestants(races: NetworkRaces) -> list[str]:
    """Everyone who took part, peers first."""
    seen = dict.fromkeys(r["name"] for race in races.values() for r in race["results"])
    peers = [peer.name for peer in NETWORK_PEERS if peer.name in seen]
    return [*peers, *(name for name in seen if name not in peers)]


def _table(title: str, races: NetworkRaces, names: list[str], cell: Any) -> Table:
    table = Table(title=title)
    table.add_column("network", no_wrap=True)
    for name in ("batch", "threads", *names):
        table.add_column(name, justify="right", no_wrap=True)
    for key, race in races.items():
        by_name = {result["name"]: result for result in race["results"]}
        cells = [cell(by_name[name]) if name in by_name else "" for name in names]
        table.add_row(key.network, str(key.batch), str(key.threads), *cells)
    return table


def _peak(result: Mapping[str, Any]) -> str:
    peak = result["memory"]["peak"]
    return "" if peak is None else f"{peak:.0f}"


def network_summary(races: NetworkRaces, statistic: str) -> Iterator[str]:
    """The ratios, one line per race and kind; failures; whether the machine was busy."""
    for key, race in races.items():
        for name, value in figures(race, statistic).items():
            yield f"{key}: {name}: {value:.2f}x"
        for name, why in race["failed"].items():
            yield f"{key}: {name} failed: {why}"
    errors = [r["error"] for race in races.values() for r in race["results"]]
    yield f"largest error: {max(errors, default=0.0):.1e} of the largest output"
    load = max((race["load"] - key.threads for key, race in races.items()), default=0.0)
    if load > _BUSY:
        yield f"other programs ran, up to {load:.1f} at a time: these are no figures to report"
