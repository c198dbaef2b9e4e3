"""Contestants timed in turn, in rounds, so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .worker import PeerFailed

_SLOT = 0.03  # seconds of one contestant's turn, and
_MOST_CALLS = 20  # the calls it has at most
_FEWEST_ROUNDS = 2


class Contestant(Protocol):
    """What can be timed.

    Attributes:
        settle: seconds after a turn of several threads until its pool of workers is asleep.
    """

    settle: float

    def seconds(self, repeats: int, limit: float, clock: str) -> list[float]:
        """Seconds of 1 to ``repeats`` calls, for about ``limit`` seconds, after one to warm up."""


@dataclass(frozen=True)
class Effort:
    """How long a race goes on.

    Attributes:
        rounds: turns of every contestant, at most.
        seconds: after so many no further round is started, two being had in any case.
        clock: "wall", or "cpu": processor time, for one thread on a machine that others use.
    """

    rounds: int = 15
    seconds: float = 8.0
    clock: str = "wall"


def race(
    contestants: Mapping[str, Contestant], threads: int, effort: Effort
) -> tuple[dict[str, list[list[float]]], dict[str, str]]:
    """Time all contestants in turn.

    Returns:
        seconds of the calls, per contestant and round; and what failed, with its message.
    """
    rounds: dict[str, list[list[float]]] = {name: [] for name in contestants}
    failed: dict[str, str] = {}
    start = time.perf_counter()
    for number in range(effort.rounds):
        if number >= _FEWEST_ROUNDS and time.perf_counter() - start > effort.seconds:
            break
        for name, contestant in contestants.items():
            if name in failed:
                continue
            try:
                rounds[name].append(contestant.seconds(_MOST_CALLS, _SLOT, effort.clock))
            except PeerFailed as error:
                failed[name] = " ".join(str(error).split())
            if threads > 1:
                time.sleep(contestant.settle)
    return {name: calls for name, calls in rounds.items() if name not in failed}, failed


def summary(rounds: list[list[float]], convolutions: int) -> dict[str, Any]:
    """Milliseconds of one convolution of a chain: median of all calls, quartiles, fastest."""
    calls = sorted(1e3 * seconds / convolutions for calls in rounds for seconds in calls)
    return {
        "ms": round(statistics.median(calls), 5),
        "quartiles": [round(float(q), 5) for q in np.quantile(calls, [0.25, 0.75])],
        "fastest": round(calls[0], 5),
        "calls": len(calls),
        "rounds": len(rounds),
    }
