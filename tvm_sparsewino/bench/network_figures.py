"""What a record of networks says about the project's goals: ratios of times and of memory. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .network_contestants import our_name
from .network_records import NetworkKey
from .peers import DENSE_RIVALS

NetworkRaces = Mapping[NetworkKey, Mapping[str, Any]]
SPARSE_RIVAL = "deepsparse-sparse90"
MEMORY_RIVAL = "openvino"


def figures(race: Mapping[str, Any], statistic: str) -> dict[str, float]:
    """Ratios of one race, those that it has the times for; above 1 ours is better.

    Args:
        race: a line of the record.
        statistic: what counts of a time: "ms", the median, or "fastest".
    """
    known = {result["name"]: result for result in race["results"]}
    times = {name: result[statistic] for name, result in known.items()}
    dense = min((times[n] for n in DENSE_RIVALS if n in times), default=None)
    found: dict[str, float] = {}
    for density in _densities(race["results"]):
        mine = times[our_name(density)]
        what = f"density {density:g}"
        if dense is not None:
            found[f"{what} over the fastest dense peer"] = dense / mine
        for rival in ("openvino", SPARSE_RIVAL):
            if rival in times:
                found[f"{what} over {rival}"] = times[rival] / mine
        peaks = [
            known[n]["memory"]["peak"] for n in (MEMORY_RIVAL, our_name(density)) if n in known
        ]
        if len(peaks) == 2 and all(peaks):
            found[f"{what}, memory of {MEMORY_RIVAL} over ours"] = peaks[0] / peaks[1]
    return {name: round(value, 3) for name, value in found.items()}


def summarise_networks(races: NetworkRaces, statistic: str = "ms") -> dict[str, Any]:
    """The ratios of every race as plain JSON values, under the race's name."""
    return {
        "statistic": statistic,
        **{str(key): figures(race, statistic) for key, race in races.items()},
    }


def _densities(results: Iterable[Mapping[str, Any]]) -> list[float]:
    return [r["asked_density"] for r in results if "asked_density" in r]
