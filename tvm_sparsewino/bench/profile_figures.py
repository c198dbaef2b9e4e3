"""What a profile says: shares of the total, floors, predictions.

The floor of a kernel is the longer of two times: its multiply-adds at the peak of the cores, and
its operands and output, each once, at the rate at which a copy of as many bytes runs. For layers
that the planner knows, the multiply-adds are those of the kernel that it chose, nonzeros only for
sparse ones; others have none counted, so that their floor is that of their bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..profile import KernelTime, NetworkTime

# Sizes of what is copied: within L1 and L2, within L3, beyond.
COPIED = (1 << 17, 1 << 21, 1 << 26)
_COPIES = 15


@dataclass(frozen=True)
class Limits:
    """What the machine can do.

    Attributes:
        flops: multiply-add peak of all threads, FLOP/s.
        copies: size in bytes -> bytes a second, read and written, of all threads.
        cycles: of a core, a second, as far as predictions go.
    """

    flops: float
    copies: Mapping[int, float]
    cycles: float

    def seconds(self, flops: float, moved: float) -> float:
        """The floor of a kernel."""
        fitting = [size for size in self.copies if size >= moved] or [max(self.copies)]
        return max(flops / self.flops, moved / self.copies[min(fitting)])


@dataclass(frozen=True)
class Row:
    """One kernel call.

    Attributes:
        layer: name of the layer, "" where the planner knows none.
        kernel: name of the function.
        ms: median.
        share: of the network's time.
        predicted_ms: by the planner; None where it predicts nothing.
        floor_ms: below which the machine cannot go.
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
    of_floor: float
    gflops: float
    moved: int
    output: tuple[int, ...]
    why: str


def rows(measured: NetworkTime, limits: Limits) -> list[Row]:
    """Every kernel call, in the order they run; shares are of the sum of all."""
    total = sum(kernel.median for kernel in measured.kernels)
    return [_row(kernel, total, limits) for kernel in measured.kernels]


def _row(kernel: KernelTime, total: float, limits: Limits) -> Row:
    plan, seconds = kernel.plan, kernel.median
    flops = plan.flops_done if plan is not None else 0
    floor = limits.seconds(flops, kernel.moved)
    cycles = plan.cost_cycles if plan is not None else 0
    return Row(
        layer=plan.name if plan is not None else "",
        kernel=kernel.kernel,
        ms=1e3 * seconds,
        share=seconds / total,
        predicted_ms=1e3 * cycles / limits.cycles if cycles else None,
        floor_ms=1e3 * floor,
        of_floor=floor / seconds,
        gflops=flops / 1e9,
        moved=kernel.moved,
        output=kernel.output,
        why=plan.reason if plan is not None else "",
    )


def far_from_floor(every: Sequence[Row], share: float = 0.01, least: float = 0.25) -> list[Row]:
    """Kernels that take more than ``share`` of the time and reach less than ``least`` of the
    floor, the longest first.
    """
    found = [row for row in every if row.share > share and row.of_floor < least]
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
