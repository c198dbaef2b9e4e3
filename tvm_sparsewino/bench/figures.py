"""What a record says about the project's goals: ratios of times, and where a rule is broken. Pure.

``statistic`` is what counts of a contestant's times: "ms", the median, or "fastest". "Ours" at a
density is, per tile, the kernel that the planner chooses for such weights, and then the best tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .peers import DENSE_RIVALS, SPARSE_RIVALS
from .records import RaceKey
from .shapes import headline

Races = Mapping[RaceKey, Mapping[str, Any]]
HEADLINE_DENSITY = 0.1
NEVER_SLOWER = 1.05
NOISE = 1.05
DENSE_CHOICE = 1.15
ERROR_LIMITS = {2: 1e-5, 4: 2e-5, 6: 5e-5}


@dataclass(frozen=True)
class Ratios:
    """Geometric mean and extremes of a ratio over layers.

    Attributes:
        by_layer: the ratio of every layer that has both times.
    """

    by_layer: dict[str, float] = field(default_factory=dict)

    @property
    def geomean(self) -> float:
        """Geometric mean; NaN of nothing."""
        return geomean(self.by_layer.values())

    @property
    def least(self) -> tuple[str, float]:
        """The layer with the lowest ratio."""
        return min(self.by_layer.items(), key=lambda item: item[1], default=("", math.nan))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; None where there is nothing."""
        known = bool(self.by_layer)
        return {
            "geomean": round(self.geomean, 3) if known else None,
            "least": list(self.least) if known else None,
            "by_layer": {name: round(value, 3) for name, value in self.by_layer.items()},
        }


def geomean(values: Iterable[float]) -> float:
    """Geometric mean; NaN of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def times(race: Mapping[str, Any], statistic: str) -> dict[str, float]:
    """Milliseconds of one convolution by contestant."""
    return {result["name"]: result[statistic] for result in race["results"]}


def fastest_of(
    race: Mapping[str, Any], names: Iterable[str], statistic: str
) -> tuple[str, float] | None:
    """Who of ``names`` was fastest, and its milliseconds; None if nobody took part."""
    known = times(race, statistic)
    return min(
        ((name, known[name]) for name in names if name in known),
        key=lambda item: item[1],
        default=None,
    )


def ours(race: Mapping[str, Any], statistic: str) -> dict[tuple[int, float], float]:
    """Milliseconds of the kernel that the planner chooses, by (tile, density)."""
    dense = {
        r["m"]: r[statistic] for r in race["results"] if r.get("algorithm") == "dense_winograd"
    }
    return {
        (r["m"], r["asked_density"]): r[statistic] if r["chosen"] else dense[r["m"]]
        for r in race["results"]
        if r.get("algorithm") == "sparse_winograd"
    }


def best_tile(race: Mapping[str, Any], density: float, statistic: str) -> tuple[int, float] | None:
    """The fastest tile at a density, and its milliseconds."""
    every = ours(race, statistic)
    candidates = ((m, ms) for (m, d), ms in every.items() if d == density)
    return min(candidates, key=lambda item: item[1], default=None)


def speedups(
    races: Races, names: tuple[str, ...], batch: int, threads: int, statistic: str
) -> dict[str, Ratios]:
    """How many times faster ours is than the fastest of ``names``: over the headline layers,
    and over those besides.
    """
    inside, outside = {}, {}
    chosen = set(headline())
    for key, race in races.items():
        rival = fastest_of(race, names, statistic)
        mine = best_tile(race, HEADLINE_DENSITY, statistic)
        if (key.batch, key.threads) == (batch, threads) and rival and mine:
            group = inside if key.layer in chosen else outside
            group[str(key.layer)] = rival[1] / mine[1]
    return {"headline": Ratios(inside), "others": Ratios(outside)}


def thread_gain(races: Races, batch: int, statistic: str) -> Ratios:
    """Ours with one thread over ours with two, over the headline layers."""
    gains, chosen = {}, set(headline())
    for key, race in races.items():
        other = races.get(RaceKey(key.layer, batch, 2))
        if (key.batch, key.threads) == (batch, 1) and key.layer in chosen and other:
            pair = [best_tile(r, HEADLINE_DENSITY, statistic) for r in (race, other)]
            if all(pair):
                gains[str(key.layer)] = pair[0][1] / pair[1][1]
    return Ratios(gains)


def dense_choices(races: Races, batch: int, threads: int, statistic: str) -> Ratios:
    """What the planner takes for dense filters, over the fastest dense rival; below 1 is ahead."""
    ratios, chosen = {}, set(headline())
    for key, race in races.items():
        choice = next((r["dense_choice"] for r in race["results"] if "dense_choice" in r), None)
        rival, known = fastest_of(race, DENSE_RIVALS, statistic), times(race, statistic)
        here = (key.batch, key.threads) == (batch, threads) and key.layer in chosen
        if here and rival and choice in known:
            ratios[str(key.layer)] = known[choice] / rival[1]
    return Ratios(ratios)


def slower_than_dense(races: Races, statistic: str) -> list[tuple[str, float]]:
    """Where ours is slower than our own dense kernel for the same weights, and how much."""
    found = []
    for key, race in races.items():
        known = times(race, statistic)
        for (m, density), ms in ours(race, statistic).items():
            ratio = ms / known[f"dense_winograd F({m},3)"]
            if ratio > NEVER_SLOWER:
                found.append((f"{key} F({m},3) {density:g}", ratio))
    return sorted(found, key=lambda item: -item[1])


def not_monotonic(races: Races, statistic: str) -> list[tuple[str, float]]:
    """Where fewer nonzeros take more time than the next density above, and how much."""
    found = []
    for key, race in races.items():
        every = ours(race, statistic)
        for m in dict.fromkeys(m for m, _ in every):
            densities = sorted((d for tile, d in every if tile == m), reverse=True)
            for more, fewer in pairwise(densities):
                ratio = every[m, fewer] / every[m, more]
                if ratio > NOISE:
                    found.append((f"{key} F({m},3) {more:g} to {fewer:g}", ratio))
    return sorted(found, key=lambda item: -item[1])


def largest_errors(races: Races) -> dict[str, float]:
    """Largest error over the largest output, by tile ("F(4,3)") or by peer or kernel."""
    errors: dict[str, float] = {}
    for race in races.values():
        for result in race["results"]:
            name = f"F({result['m']},3)" if result.get("m") else result["name"]
            errors[name] = max(errors.get(name, 0.0), result["error"])
    return errors


def different_bits(races: Races) -> list[str]:
    """Kernels whose output has other bits with other numbers of threads."""
    seen: dict[tuple[Any, ...], int] = {}
    found = []
    for key, race in races.items():
        for result in race["results"]:
            if "checksum" in result:
                name = (key.layer, key.batch, result["name"])
                if seen.setdefault(name, result["checksum"]) != result["checksum"]:
                    found.append(f"{key} {result['name']}")
    return found


def busiest(races: Races) -> float:
    """Highest load average at a race's start, less the threads that the benchmark itself uses.

    Well above 0 other programs had the cores, too: engines whose calls are long then look slow.
    """
    return max((race["load"] - key.threads for key, race in races.items()), default=0.0)


def summarise(races: Races, statistic: str = "ms") -> dict[str, Any]:
    """Every figure as plain JSON values."""
    places = sorted({(key.batch, key.threads) for key in races})
    figures: dict[str, Any] = {"statistic": statistic, "density": HEADLINE_DENSITY}
    for batch, threads in places:
        where = (batch, threads, statistic)
        dense = speedups(races, DENSE_RIVALS, *where)
        sparse = speedups(races, SPARSE_RIVALS, *where)
        figures[f"batch {batch}, threads {threads}"] = {
            "over the fastest dense peer": dense["headline"].to_json(),
            "over DeepSparse": sparse["headline"].to_json(),
            "other layers, over the fastest dense peer": dense["others"].to_json(),
            "our dense choice over the fastest dense peer": dense_choices(races, *where).to_json(),
        }
    for batch in sorted({batch for batch, _ in places}):
        figures[f"two threads over one, batch {batch}"] = thread_gain(
            races, batch, statistic
        ).to_json()
    figures["slower than our own dense"] = slower_than_dense(races, statistic)
    figures["slower with fewer nonzeros"] = not_monotonic(races, statistic)
    figures["largest errors"] = largest_errors(races)
    figures["other bits with other threads"] = different_bits(races)
    figures["load beside the benchmark"] = round(max(busiest(races), 0.0), 2)
    return figures
