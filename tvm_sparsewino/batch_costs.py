"""Predicted time of calls, and which batch sizes a number of rows is put together from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .config import LayerPlan
from .config_linear import AnyPlan
from .cost_quantities import lines_beyond
from .geometry import FLOAT_BYTES, ceil_div

# Cycles that a call takes besides its layers: the virtual machine, and copying rows in and out.
_CALL = 50_000
# The same in rows, for networks without a prediction.
CALL_ROWS = 0.5

# What a line of a convolution's output costs, written and read again, where the last cache does not
# keep it from one layer to the next; plans know nothing of what comes after them. Fitted to
# benchmarks/batch_pieces.py, 90 % zeros, one core of a Zen 3: 16 images at once take 4 ms an image
# more than 16 calls in ResNet-50, 1.5 ms in MobileNetV2, which is 12 to 18 cycles a line, and 4 at
# once 2.2 and 0.3 ms.
_FAR_LINE = 15.0
_LAST_CACHE = 8 << 20  # bytes of it that a network can hope for

# Share of a call that its threads divide; the rest they spend in one of them or waiting. Two
# threads are 1.5 to 1.75 times as fast as one for one image through ResNet-18 and ResNet-50.
_DIVIDED = 0.75
# Cycles of handing pieces to other threads and waiting for the last: 10 microseconds each.
_HANDING_OVER = 60_000


def call_cycles(plans: Iterable[AnyPlan], threads: int) -> float:
    """What a call with these layers is predicted to take on one thread: cycles; 0 if unknown.

    Layers that are left as they are have no prediction.

    Args:
        plans: of all layers.
        threads: that the plans were made for; what they predict shrinks nearly as these grow.
    """
    known = list(plans)
    layers = sum(plan.cost_cycles for plan in known)
    return threads * layers + sum(map(_far, known)) + _CALL if layers else 0.0


def _far(plan: AnyPlan) -> float:
    """Cycles for the output of a convolution that the last cache does not keep."""
    if not isinstance(plan, LayerPlan) or plan.conv is None:
        return 0.0
    shape = plan.conv
    numbers = shape.n * shape.k * shape.oh * shape.ow
    return _FAR_LINE * lines_beyond(FLOAT_BYTES * numbers, _LAST_CACHE)


class Pieces:
    """Which batch sizes a number of rows is put together from: what is predicted to be fastest.

    The same on any number of threads, so that results are, too.

    Args:
        costs: batch size -> what a call takes, in any unit.
    """

    def __init__(self, costs: Mapping[int, float]) -> None:
        self._bulk = min(costs, key=lambda size: costs[size] / size)
        # Rows -> cost, number of calls and size of the first. More rows than that begin with the
        # size that takes least per row.
        self._best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
        for rows in range(1, 2 * max(costs) + 1):
            self._best.append(min(self._with(size, rows, costs[size]) for size in costs))

    def _with(self, size: int, rows: int, cost: float) -> tuple[float, int, int]:
        left, calls, _ = self._best[max(rows - size, 0)]
        return left + cost, calls + 1, size

    def __call__(self, rows: int) -> tuple[int, ...]:
        """Batch sizes, largest first, whose sum is at least ``rows``: the rows that are too many
        are part of a call that is faster with them than the calls without.
        """
        count = max(0, ceil_div(rows - len(self._best) + 1, self._bulk))
        pieces, left = [self._bulk] * count, rows - count * self._bulk
        while left > 0:
            pieces.append(self._best[left][2])
            left -= pieces[-1]
        return tuple(sorted(pieces, reverse=True))


@dataclass(frozen=True)
class Round:
    """Calls of one batch size.

    Attributes:
        size: rows of each.
        count: how many.
        at_once: how many at the same time.
        threads: that each of them uses.
    """

    size: int
    count: int
    at_once: int
    threads: int


def rounds(pieces: Sequence[int], costs: Mapping[int, float], threads: int) -> tuple[Round, ...]:
    """How pieces run on some threads: side by side, or one after another with all threads each.

    Side by side every thread runs pieces of its own, so that no layer waits for the slowest thread;
    what is left when there are fewer pieces than threads shares all of them. One after another is
    faster for pieces that take less than handing them over.

    Args:
        pieces: batch sizes, equal ones together.
        costs: batch size -> cycles of a call on one thread; other units say nothing of handing
            over, which then counts little.
        threads: all that there are.
    """
    found: list[Round] = []
    for size, count in Counter(pieces).items():
        after = Round(size, count, 1, threads)
        beside = _beside(size, count, threads)
        cheaper = _cycles([after], costs) <= _cycles(beside, costs)
        found += [after] if cheaper else beside
    return tuple(found)


def _beside(size: int, count: int, threads: int) -> list[Round]:
    left = count % threads
    full = [Round(size, count - left, threads, 1)] if count > left else []
    return full + ([Round(size, left, left, threads // left)] if left else [])


def _cycles(parts: Sequence[Round], costs: Mapping[int, float]) -> float:
    total = 0.0
    for part in parts:
        one = costs[part.size] * (1 - _DIVIDED + _DIVIDED / part.threads)
        total += part.count / part.at_once * one + _HANDING_OVER * (part.at_once > 1)
    return total
