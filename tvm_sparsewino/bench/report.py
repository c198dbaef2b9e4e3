"""A record for people: one table of times per batch and threads, then what it says of the goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from .figures import (
    DENSE_CHOICE,
    ERROR_LIMITS,
    HEADLINE_DENSITY,
    NEVER_SLOWER,
    NOISE,
    Races,
    best_tile,
    fastest_of,
    ours,
    summarise,
    times,
)
from .peers import DENSE_RIVALS, PEERS, SPARSE_RIVALS

_MOST_LISTED = 8
_BUSY = 0.5  # load beside the benchmark's own


def tables(races: Races, statistic: str) -> Iterator[Table]:
    """Milliseconds of a convolution, one table per batch and number of threads."""
    for batch, threads in sorted({(key.batch, key.threads) for key in races}):
        table = Table(title=f"ms per convolution, batch {batch}, {threads} threads, {statistic}")
        table.add_column("layer", no_wrap=True)
        peers = [peer.name for peer in PEERS if _took_part(races, peer.name)]
        columns = [*peers, "our direct", "F(2,3)", "F(4,3)", "F(6,3)", "GFLOP/s"]
        for name in (*columns, "x dense", "x DeepSparse", "spread"):
            table.add_column(name, justify="right", no_wrap=True)
        for key, race in races.items():
            if (key.batch, key.threads) == (batch, threads):
                table.add_row(str(key.layer), *_row(race, peers, statistic))
        yield table


def _took_part(races: Races, name: str) -> bool:
    return any(name in times(race, "ms") for race in races.values())


def _row(race: Mapping[str, Any], peers: list[str], statistic: str) -> list[str]:
    known, every = times(race, statistic), ours(race, statistic)
    cells = [_ms(known.get(name)) for name in (*peers, "dense_direct")]
    cells += [_ms(every.get((m, HEADLINE_DENSITY))) for m in (2, 4, 6)]
    best = best_tile(race, HEADLINE_DENSITY, statistic)
    cells.append(f"{race['direct_flops'] / best[1] / 1e6:.0f}" if best else "")
    for rivals in (DENSE_RIVALS, SPARSE_RIVALS):
        rival = fastest_of(race, rivals, statistic)
        cells.append(f"{rival[1] / best[1]:.1f}" if rival and best else "")
    return [*cells, f"{statistics.median(map(_spread, race['results'])):.0%}"]


def _spread(result: Mapping[str, Any]) -> float:
    """Distance of the quartiles over the median."""
    low, high = result["quartiles"]
    return (high - low) / result["ms"]


def _ms(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else ""


def stage_table(races: Races) -> Table:
    """The stages of the best sparse kernels, one thread and batch 1."""
    table = Table(title="stages of the best sparse kernel, one thread, batch 1")
    table.add_column("layer", no_wrap=True)
    for name in ("kernel", "stage", "ms", "GFLOP/s", "MB", "share of floor"):
        table.add_column(name, justify="right", no_wrap=True)
    for key, race in races.items():
        for result in race["results"]:
            for stage, values in result.get("stages", {}).items():
                table.add_row(
                    str(key.layer),
                    result["name"].removeprefix("sparse_winograd "),
                    stage,
                    f"{values['ms']:.4f}",
                    f"{values['gflops']:.1f}",
                    f"{values['bytes'] / 1e6:.2f}",
                    f"{values['share_of_floor']:.0%}",
                )
    return table


def summary_lines(races: Races, statistic: str) -> Iterator[str]:
    """What the record says of the goals, one sentence each."""
    figures = summarise(races, statistic)
    for place, values in figures.items():
        if place.startswith("batch"):
            for what, ratios in values.items():
                yield f"{place}: {what}: {_ratios(ratios)}"
        elif place.startswith("two threads"):
            yield f"{place}: {_ratios(values)}"
    yield _places("slower than our own dense", figures, NEVER_SLOWER)
    yield _places("slower with fewer nonzeros", figures, NOISE)
    for name, error in figures["largest errors"].items():
        limits = {f"F({m},3)": limit for m, limit in ERROR_LIMITS.items()}
        limit = f", limit {limits[name]:.0e}" if name in limits else ""
        yield f"largest error of {name}: {error:.1e} of the largest output{limit}"
    bits = figures["other bits with other threads"]
    yield f"other bits with other threads: {', '.join(bits[:_MOST_LISTED]) or 'nowhere'}"
    load = figures["load beside the benchmark"]
    if load > _BUSY:
        yield f"other programs ran, up to {load:.1f} at a time: these are no figures to report"
    yield f"(our dense choice is meant to be at most {DENSE_CHOICE} of the fastest dense peer)"


def _ratios(ratios: Mapping[str, Any]) -> str:
    if ratios["geomean"] is None:
        return "not measured"
    layer, least = ratios["least"]
    most = max(ratios["by_layer"].values())
    count = len(ratios["by_layer"])
    return f"{ratios['geomean']:.2f}x geomean of {count}, {least:.2f} ({layer}) to {most:.2f}"


def _places(what: str, figures: Mapping[str, Any], limit: float) -> str:
    found = figures[what]
    listed = "; ".join(f"{name} {ratio:.2f}x" for name, ratio in found[:_MOST_LISTED])
    more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    return f"{what} (above {limit}x): {listed + more if found else 'nowhere'}"
