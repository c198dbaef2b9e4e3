"""What a profile says: shares of the total, floors, predictions.

The floor of a kernel is the longest of three times: its multiply-adds at the peak of the cores; its
operands and output, each once, at the rate at which a copy of as many bytes runs; and the call of a
kernel that does next to nothing. For layers that the planner knows, the multiply-adds are those of
the kernel that it chose, nonzeros only for sparse ones; others have none counted, so that their
floor is that of their bytes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..profile import KernelTime, NetworkTime

# Sizes of what is copied: within L2, within L3, within what others leave of it, beyond. Of smaller
# ones the call would be most of the time.
COPIED = (1 << 17, 1 << 21, 1 << 23, 1 << 26)
_COPIES = 15
MENTIONED = 0.01  # share of a network's time from which on a kernel is looked at
LEAST = 0.25  # of its floor, what a kernel should reach


@dataclass(frozen=True)
class Limits:
    """What the machine can do.

    Attributes:
        flops: multiply-add peak of all threads, FLOP/s.
        copies: size in bytes -> bytes a second, read and written, of all threads.
        cycles: of a core, a second, as far as predictions go.
        call: seconds that calling any kernel takes, the clock's own included.
    """

    flops: float
    copies: Mapping[int, float]
    cycles: float
    call: float = 0.0

    def floor(self, flops: float, moved: float) -> tuple[float, str]:
        """The seconds below which no kernel goes, and what they are of: a row's ``bound``."""
        fitting = [size for size in self.copies if size >= moved] or [max(self.copies)]
        return max(
            (flops / self.flops, "FLOPs"),
            (moved / self.copies[min(fitting)], "bytes"),
            (self.call, "call"),
        )


@dataclass(frozen=True)
class Row:
    """One kernel call.

    Attributes:
        layer: name of the layer, "" where the planner knows none.
        kernel: name of the function.
        ms: median, or what was asked for.
        share: of the network's time.
        predicted_ms: by the planner; None where it predicts nothing.
        floor_ms: below which the machine cannot go.
        bound: what the floor is of: "FLOPs", "bytes" or "call".
        of_floor: floor over time, 1 at best.
        gflops, moved: work and bytes that the floor counts.
        output: shape.
        why: the plan's reason, "" without a plan.
    """

    layer: str
    kernel: str
    ms: float
    share: float
    predicted_ms: float | None
    floor_ms: float
    bound: str
    of_floor: float
    gflops: float
    moved: int
    output: tuple[int, ...]
    why: str


def rows(
    measured: NetworkTime,
    limits: Limits,
    statistic: Callable[[Sequence[float]], float] = statistics.median,
) -> list[Row]:
    """Every kernel call, in the order they run; shares are of the sum of all.

    Args:
        measured: the network.
        limits: of the machine.
        statistic: one time of a kernel's many; ``min`` on a machine that others use.
    """
    times = [statistic(kernel.seconds) for kernel in measured.kernels]
    pairs = zip(measured.kernels, times, strict=True)
    return [_row(kernel, seconds, sum(times), limits) for kernel, seconds in pairs]


def _row(kernel: KernelTime, seconds: float, total: float, limits: Limits) -> Row:
    plan = kernel.plan
    flops = plan.flops_done if plan is not None else 0
    floor, bound = limits.floor(flops, kernel.moved)
    cycles = plan.cost_cycles if plan is not None else 0
    return Row(
        layer=plan.name if plan is not None else "",
        kernel=kernel.kernel,
        ms=1e3 * seconds,
        share=seconds / total,
        predicted_ms=1e3 * cycles / limits.cycles if cycles else None,
        floor_ms=1e3 * floor,
        bound=bound,
        of_floor=floor / seconds,
        gflops=flops / 1e9,
        moved=kernel.moved,
        output=kernel.output,
        why=plan.reason if plan is not None else "",
    )


def far_from_floor(every: Sequence[Row], least: float = LEAST) -> list[Row]:
    """Kernels that take more than :data:`MENTIONED` of the time and reach less than ``least`` of
    the floor, the longest first.
    """
    found = [row for row in every if row.share > MENTIONED and row.of_floor < least]
    return sorted(found, key=lambda row: -row.ms)


def to_json(measured: NetworkTime, every: Sequence[Row], limits: Limits) -> dict[str, Any]:
    """Everything as plain JSON values."""
    return {
        "ms": 1e3 * measured.median,
        "kernels_ms": sum(row.ms for row in every),
        "runs": len(measured.seconds),
        "limits": {**asdict(limits), "copies": {str(k): v for k, v in limits.copies.items()}},
        "kernels": [asdict(row) for row in every],
    }


def copy_rates(threads: int) -> dict[int, float]:
    """Bytes a second that one core reads and writes in copying, times ``threads``, by size."""
    rates = {}
    for size in COPIED:
        source, target = np.zeros(size // 8, np.float32), np.empty(size // 8, np.float32)
        repeats, times = max(1, (1 << 22) // size), []
        for _ in range(_COPIES):
            start = time.perf_counter()
            for _ in range(repeats):
                np.copyto(target, source)
            times.append((time.perf_counter() - start) / repeats)
        rates[size] = threads * size / min(times)
    return rates
