"""The largest learning rate at which a training run does not diverge, by doubling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from ..errors import ConfigError

# A run has diverged when the mean loss of its last tenth exceeds that of no training by this.
_GROWTH = 1.1


@dataclass(frozen=True)
class StableRate:
    """What :func:`largest_stable_rate` found.

    Attributes:
        rate: the largest rate that was stable; 0 if not even the first was.
        trials: every rate tried with the mean loss of its first and last tenth. The first is rate
            0, no training; the last is of a rate that diverged, unless ``bounded`` is False.
        bounded: whether a rate that diverged was found.
    """

    rate: float
    trials: tuple[tuple[float, float, float], ...]
    bounded: bool


def largest_stable_rate(
    losses: Callable[[float], Iterable[float]],
    start: float = 1e-6,
    stop: float = 10.0,
    steps: int = 300,
) -> StableRate:
    """Double the learning rate from ``start`` until training diverges.

    A run has diverged when a loss is not finite or the mean loss of its last tenth is more than
    1.1 times what it is at rate 0, without training: a run that is thrown far off by its first
    steps and comes halfway back is not stable. The search ends at the first rate that diverges: a
    larger one that happens to survive is not stable.

    Args:
        losses: ``losses(rate)`` starts a new run at this rate and yields the loss of each step. The
            caller fixes seeds, data and pruning, so that runs differ by their rate alone.
        start: the first rate.
        stop: no rate above this is tried.
        steps: steps of each run, at least 10.

    Raises:
        ConfigError: rates that are not ``0 < start <= stop``, fewer than 10 steps, a run that ends
            early, or a loss that is not finite without training.
    """
    if not (0 < start <= stop and math.isfinite(stop)):
        raise ConfigError(f"rates must satisfy 0 < start <= stop, got {start!r} and {stop!r}")
    if steps < 10:
        raise ConfigError(f"steps must be >= 10, got {steps!r}")
    still = _ends(losses(0.0), steps)
    if not math.isfinite(still[1]):
        raise ConfigError("the loss is not finite at rate 0, without training")
    best, trials, rate = 0.0, [(0.0, *still)], start
    while rate <= stop:
        first, last = _ends(losses(rate), steps)
        trials.append((rate, first, last))
        if not last <= _GROWTH * still[1]:
            return StableRate(best, tuple(trials), True)
        best, rate = rate, 2 * rate
    return StableRate(best, tuple(trials), False)


def _ends(run: Iterable[float], steps: int) -> tuple[float, float]:
    """Mean loss of the first and the last tenth; infinite once a loss is not finite."""
    seen, tenth = [], max(1, steps // 10)
    for loss in islice(run, steps):
        seen.append(float(loss))
        if not math.isfinite(seen[-1]):
            return sum(seen[:tenth]) / len(seen[:tenth]), math.inf
    if len(seen) < steps:
        raise ConfigError(f"the run yielded {len(seen)} losses, expected {steps}")
    return sum(seen[:tenth]) / tenth, sum(seen[-tenth:]) / tenth
