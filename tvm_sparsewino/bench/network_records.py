"""Races of networks in a record; of those with the same key the last one counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NetworkKey:
    """What identifies a race of networks.

    Attributes:
        network: its name.
        batch, threads: images, and threads of a call.
        size: height and width of the images.
    """

    network: str
    batch: int
    threads: int
    size: int

    def __str__(self) -> str:
        return f"{self.network} {self.size}x{self.size} batch {self.batch} threads {self.threads}"


def network_races(lines: Iterable[dict[str, Any]]) -> dict[NetworkKey, dict[str, Any]]:
    """The last race of every key."""
    found: dict[NetworkKey, dict[str, Any]] = {}
    for line in lines:
        if line["kind"] == "network":
            key = NetworkKey(line["network"], line["batch"], line["threads"], line["size"])
            found[key] = line
    return found
