"""How long every kernel of a compiled network takes, measured while the network runs."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .artefact import Description, batch_entry
from .config import Epilogue, LayerPlan
from .machines import ENTRY, Machines
from .schedules.build import kernel_name

# What the virtual machine itself does: memory, shapes, calls of other functions.
_RUNTIME = "vm."
# Functions with operands inside larger tensors end with the numbers and sizes of those operands.
_PARTS = re.compile(r"_in((?:_[0-9]+x[0-9]+)+)$")
# Functions that write over what they add have that in their names.
_IN_PLACE = "_in_place_"


@dataclass(frozen=True)
class KernelTime:
    """One call of a kernel within one call of the network.

    Attributes:
        kernel: name of the function.
        plan: the layer that it computes; None for what belongs to no planned layer.
        seconds: of every measured call, in order.
        moved: bytes of all operands and of the output, each read or written once; those inside
            larger tensors, whose sizes a call does not tell, are not counted.
        output: shape of the output.
    """

    kernel: str
    plan: Any
    seconds: tuple[float, ...]
    moved: int
    output: tuple[int, ...]

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class NetworkTime:
    """Times of a network and of the kernels in it, in the order they run.

    Attributes:
        seconds: of whole calls, taken without looking inside.
        kernels: every call of a kernel.
    """

    seconds: tuple[float, ...]
    kernels: tuple[KernelTime, ...]

    @property
    def median(self) -> float:
        """Median seconds of a call."""
        return statistics.median(self.seconds)


def profile(
    machines: Machines,
    description: Description,
    tensors: Sequence[Any],
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> NetworkTime:
    """Run a network ``runs`` times as it is and ``runs`` times with a clock around every kernel.

    Args:
        machines: run the network.
        description: what it is; its plan tells which layer a kernel computes.
        tensors: the inputs, TVM's tensors; where the batch is open or run in pieces, with one of
            the sizes that there is a function for.
        runs: at least 1.
        clock: seconds; ``time.thread_time`` on a machine that others use, for one thread.
    """
    machine = machines.new()
    entry, plan = _entry(description, tensors)
    function, watch = machine.bound(entry), _Watch(clock)
    function(*tensors)
    whole = []
    for _ in range(runs):
        start = clock()
        function(*tensors)
        whole.append(clock() - start)
    machine.watch(watch)
    function(*tensors)
    watch.next_run()
    for _ in range(runs):
        function(*tensors)
        watch.next_run()
    calls = [watch.seen[number] for number in sorted(watch.seen)]
    plans = assign([call.kernel for call in calls], plan)
    kernels = (
        KernelTime(c.kernel, plan, tuple(c.seconds[1:]), c.moved, c.output)
        for c, plan in zip(calls, plans, strict=True)
    )
    return NetworkTime(tuple(whole), tuple(kernels))


def _entry(description: Description, tensors: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The function that takes tensors of these shapes, and its plan."""
    if not description.batches:
        return ENTRY, description.plan
    pairs = zip(description.opened().inputs, tensors, strict=True)
    batch = next(int(tensor.shape[0]) for info, tensor in pairs if info.any_batch)
    return batch_entry(batch), description.plan_of(batch)


def assign(kernels: Sequence[str], plans: Iterable[Any]) -> list[Any]:
    """The plan behind every call of a kernel, None where there is none.

    Kernels are named after what they compute, so that layers which share one are told apart only
    by their order: kernels run in the order of the plan.
    """
    left = [plan for plan in plans if plan.algorithm != "left"]
    assigned = []
    for kernel in kernels:
        fits = [_fit(kernel, plan) for plan in left]
        best = max(range(len(left)), key=lambda i: fits[i], default=None)
        assigned.append(left.pop(best) if best is not None and fits[best] else None)
    return assigned


def _fit(kernel: str, plan: Any) -> int:
    """How much of a kernel's name the plan explains, in characters; 0 for another's kernel."""
    if isinstance(plan, LayerPlan):
        name = kernel_name(plan, Epilogue())
        return len(name) if f"{kernel}_".startswith(f"{name}_") else 0
    sizes = f"_c{plan.linear.c}k{plan.linear.k}_"
    ours = kernel.startswith(plan.algorithm) and sizes in f"{kernel}_"
    return len(plan.algorithm) + len(sizes) if ours else 0


class _Call:
    """What was seen of one call."""

    def __init__(self, kernel: str, tensors: list[Any]) -> None:
        self.kernel = kernel
        self.seconds: list[float] = []
        inside = _PARTS.search(kernel)
        sizes = dict(part.split("x") for part in inside[1].split("_")[1:]) if inside else {}
        moved = [_bytes(t, sizes.get(str(i))) for i, t in enumerate(tensors)]
        self.moved = sum(moved)
        if _IN_PLACE in f"{kernel}_":  # what is added is read where the output is written
            self.moved += moved[-1]
        self.output = tuple(int(n) for n in tensors[-1].shape) if tensors else ()


class _Watch:
    """What the virtual machine calls before and after every function."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._start, self._number = clock, 0.0, 0
        self.seen: dict[int, _Call] = {}

    def __call__(self, _function: Any, name: str, before: bool, _result: Any, *args: Any) -> None:
        if before:
            self._start = self._clock()
            return
        took = self._clock() - self._start
        if str(name).startswith(_RUNTIME):
            return
        if self._number not in self.seen:
            tensors = [arg for arg in args if hasattr(arg, "shape") and hasattr(arg, "dtype")]
            self.seen[self._number] = _Call(str(name), tensors)
        self.seen[self._number].seconds.append(took)
        self._number += 1

    def next_run(self) -> None:
        """What comes is another call of the network."""
        self._number = 0


def _bytes(tensor: Any, size: str | None) -> int:
    """Of a tensor, or of ``size`` of its elements."""
    count = math.prod(int(extent) for extent in tensor.shape) if size is None else int(size)
    return count * np.dtype(str(tensor.dtype)).itemsize
