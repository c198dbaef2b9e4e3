"""Comparable times: candidates take turns, so that a busy machine slows all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any


def median_alternating(
    callables: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Time every callable ``repeats`` times, one call of each in turn.

    Args:
        callables: what to time, by name.
        repeats: timed calls of each.
        warmup: calls of each before timing starts.

    Returns:
        seconds per call, in the order measured; ``statistics.median`` of them is what to report.

    Raises:
        ValueError: ``repeats`` below 1 or ``warmup`` below 0.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"needs repeats >= 1 and warmup >= 0, got {repeats} and {warmup}")
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for number in range(warmup + repeats):
        for name, function in callables.items():
            start = time.perf_counter()
            function()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def fastest(
    callables: Mapping[Any, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.thread_time,
) -> dict[Any, float]:
    """Seconds of the fastest of ``repeats`` calls of every callable; they take turns.

    Every timed call follows one that is not timed: what it reads is in the cache again, as far as
    it fits.

    Args:
        callables: what to time, by name.
        repeats: timed calls of each.
        clock: seconds; of the calling thread, which other work on the machine disturbs little.
    """
    best = dict.fromkeys(callables, math.inf)
    for _ in range(repeats):
        for name, call in callables.items():
            call()
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return best
