"""The search for the fastest plan of one layer.

The cost model's candidates are measured first, then the neighbours of the fastest, and theirs,
until none is faster or time is up. Candidates take turns, so that a busy machine slows all alike;
those that lose clearly drop out after a few calls. At the end the fastest few are measured again,
beside the model's choice.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..config import LayerPlan
from ..errors import SparseWinoError, TuneError
from ..records import tuned_fields
from ..schedules.target import CpuTarget
from .candidates import neighbours
from .measure import Kernel, Machine, Problem

# Plans differ in the order of their sums and in tile; float32 rounding of F(6, r) is the largest.
TOLERANCE = 1e-3
_FIRST_CALLS = 3
_CALLS = 12
_FINALISTS = 3
_FINAL_CALLS = 30
_LOSES_BY = 1.1
_GAIN = 0.99  # a neighbour must be this much faster to move to
_BATCH = 6


@dataclass(eq=False)
class Measured:
    """A candidate and the seconds of its calls; kernels that are out of the running are let go."""

    plan: LayerPlan
    kernel: Kernel | None
    seconds: list[float] = field(default_factory=list)

    @property
    def fastest(self) -> float:
        """Seconds of the fastest call."""
        return min(self.seconds)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        plan: the fastest.
        seconds, median_seconds: of its calls in the last comparison.
        model_seconds: fastest call of the model's choice in the same comparison.
        candidates: how many plans were measured.
        refused: candidates without a result, with the reason.
    """

    plan: LayerPlan
    seconds: float
    median_seconds: float
    model_seconds: float
    candidates: int
    refused: tuple[str, ...]


class Search:
    """One layer's search.

    Args:
        problem: the layer.
        machine: where kernels run.
        target: what they are built for.
        threads: threads of a call.
        budget: seconds; the candidates under way when it is over are finished.
        clock: what counts them.
    """

    def __init__(
        self,
        problem: Problem,
        machine: Machine,
        target: CpuTarget,
        threads: int,
        budget: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._problem, self._machine, self._target = problem, machine, target
        self._threads = threads
        self._clock, self._end = clock, clock() + budget
        self._known: list[Measured] = []
        self._tried: set[tuple] = set()
        self._expected: np.ndarray | None = None
        self._refused: list[str] = []

    def run(self, starts: list[LayerPlan]) -> Found:
        """Search from ``starts``, whose first is the model's choice.

        Raises:
            TuneError: the model's choice could not be measured.
        """
        model = self._measured(starts[0])
        if model is None:
            raise TuneError(f"the planner's own choice cannot be measured: {self._refused[0]}")
        best = self._compare(model, starts[1:])
        while self._has_time():
            near = neighbours(best.plan, self._target, self._threads)
            near = [plan for plan in near if _identity(plan) not in self._tried]
            better = self._compare(best, near)
            if better is best:
                break
            best = better
        return self._final(model)

    @property
    def measured(self) -> list[tuple[LayerPlan, float]]:
        """Every plan that was measured, and the seconds of its fastest call."""
        return [(m.plan, m.fastest) for m in self._known]

    def _has_time(self) -> bool:
        return self._clock() < self._end

    def _compare(self, best: Measured, plans: list[LayerPlan]) -> Measured:
        """Measure ``plans`` in small groups beside the best; returns the best then."""
        for first in range(0, len(plans), _BATCH):
            group = [best]
            for plan in plans[first : first + _BATCH]:
                if self._has_time():
                    measured = self._measured(plan)
                    group += [measured] if measured else []
            if len(group) > 1:
                _take_turns(group, _FIRST_CALLS)
                _take_turns(_close(group), _CALLS)
                fastest = min(group, key=lambda m: m.fastest)
                best = fastest if fastest.fastest < _GAIN * best.fastest else best
                self._let_go(best)
        return best

    def _let_go(self, best: Measured) -> None:
        """Free the weights of all kernels that will not be called again."""
        model, ranking = self._known[0], sorted(self._known, key=lambda m: m.fastest)
        for measured in ranking[_FINALISTS:]:
            if measured not in (model, best):
                measured.kernel = None

    def _measured(self, plan: LayerPlan) -> Measured | None:
        """Build a candidate and check its answer; None, and the reason kept, where that fails."""
        self._tried.add(_identity(plan))
        try:
            kernel = self._machine.kernel(self._problem, plan)
            measured = Measured(plan, kernel, [kernel.seconds()])
            self._check(kernel.output())
        except SparseWinoError as error:
            self._refused.append(str(error))
            return None
        self._known.append(measured)
        return measured

    def _check(self, output: np.ndarray) -> None:
        """Compare an answer with the first candidate's."""
        if self._expected is None:
            self._expected = output
        limit = TOLERANCE * float(np.abs(self._expected).max(initial=0.0))
        error = float(np.abs(output - self._expected).max(initial=0.0))
        if not error <= limit:  # also refuses NaN
            raise TuneError(f"a wrong answer: off by {error:.2g}, {limit:.2g} allowed")

    def _final(self, model: Measured) -> Found:
        ranking = sorted(self._known, key=lambda m: m.fastest)[:_FINALISTS]
        finalists = [model, *(m for m in ranking if m is not model)]
        for measured in finalists:
            measured.seconds.clear()
        _take_turns(finalists, _FINAL_CALLS)
        best = min(finalists, key=lambda m: m.fastest)
        return Found(
            plan=best.plan,
            seconds=best.fastest,
            median_seconds=statistics.median(best.seconds),
            model_seconds=model.fastest,
            candidates=len(self._known),
            refused=tuple(self._refused),
        )


def _identity(plan: LayerPlan) -> tuple:
    """Equal for plans that differ in what is said about them only."""
    return tuple(tuned_fields(plan).values())


def _take_turns(group: list[Measured], calls: int) -> None:
    """Add ``calls`` timed calls to each, one of each in turn."""
    for _ in range(calls):
        for measured in group:
            measured.seconds.append(measured.kernel.seconds())


def _close(group: list[Measured]) -> list[Measured]:
    """Those that are not clearly slower than the fastest."""
    limit = _LOSES_BY * min(m.fastest for m in group)
    return [m for m in group if m.fastest <= limit]
