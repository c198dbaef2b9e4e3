"""Build kernels of one convolution and time them on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from .. import _compat as tvm_ir
from ..config import ConvShape, Epilogue, LayerPlan
from ..packing import PackedWeights, pack
from ..planner import kernel_weight
from ..schedules.build import build_conv
from ..schedules.target import CpuTarget
from ..thread_pool import use_threads

# What follows nearly every convolution of a network; a residual would only add a read.
EPILOGUE = Epilogue(bias=True, activation="relu")
_SEED = 20170227
_SAMPLE_SECONDS = 2e-3  # shorter calls are repeated for so long: clocks and caches settle


@dataclass(frozen=True)
class Problem:
    """One convolution to be tuned.

    Attributes:
        shape: the convolution.
        weight: float32 Winograd coefficients [alpha^2, K, C/groups] or a filter
            [K, C/groups, r, r].
        m: the tile that ``weight`` is made for; 0 for a filter.
    """

    shape: ConvShape
    weight: np.ndarray
    m: int

    def packed(self, plan: LayerPlan, lanes: int) -> PackedWeights:
        """The weights as the kernel of ``plan`` reads them."""
        if plan.m not in self._by_tile:
            self._by_tile[plan.m] = kernel_weight(self.weight, self.m, plan)
        return pack(self._by_tile[plan.m], plan, lanes)

    @cached_property
    def activations(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Data, bias, and room for the output: the same for every kernel."""
        rng = np.random.default_rng(_SEED)
        s = self.shape
        x = rng.standard_normal((s.n, s.c, s.h, s.w), np.float32)
        bias = rng.standard_normal(s.k, np.float32)
        return x, bias, np.zeros((s.n, s.k, s.oh, s.ow), np.float32)

    @cached_property
    def _by_tile(self) -> dict[int, np.ndarray]:
        return {}


class Kernel(Protocol):
    """A built kernel with its operands in place."""

    def seconds(self) -> float:
        """Run it; returns the seconds of one call."""

    def output(self) -> np.ndarray:
        """What it computes: all kernels of a problem write to the same place."""


class Machine(Protocol):
    """Where kernels run."""

    def kernel(self, problem: Problem, plan: LayerPlan) -> Kernel:
        """Build the kernel of ``plan``, and place its operands."""


class LocalMachine:
    """This machine.

    Args:
        target: what to compile for; the host must be able to run it.
        threads: threads of a call.
    """

    def __init__(self, target: CpuTarget, threads: int) -> None:
        self.target, self.threads = target, threads
        self._problem: Problem | None = None
        self._shared: list[Any] = []

    def kernel(self, problem: Problem, plan: LayerPlan) -> LocalKernel:
        """As :class:`Machine`.

        Raises:
            ConfigError: there is no kernel for the plan.
            ShapeError: or none for its shape.
        """
        use_threads(self.threads)
        built, name, packed = build_kernel(problem, plan, self.target)
        if problem is not self._problem:
            self._problem = problem
            self._shared = [tvm_ir.runtime_tensor(a) for a in problem.activations]
        data, bias, output = self._shared
        tensors = [data, *map(tvm_ir.runtime_tensor, packed), bias, output]
        # One thread: its own processor time, which other work on the machine does not enter.
        clock = time.thread_time if self.threads == 1 else time.perf_counter
        return LocalKernel(built[name], tensors, clock)


class LocalKernel:
    """A kernel on this machine; ``clock`` counts seconds."""

    def __init__(self, function: Any, tensors: list[Any], clock: Any) -> None:
        self._function, self._tensors, self._clock = function, tensors, clock
        self._calls = 1

    def seconds(self) -> float:
        """As :class:`Kernel`: the mean over as many calls as fill two milliseconds."""
        start = self._clock()
        for _ in range(self._calls):
            self._function(*self._tensors)
        each = (self._clock() - start) / self._calls
        self._calls = max(1, round(_SAMPLE_SECONDS / max(each, 1e-6)))
        return each

    def output(self) -> np.ndarray:
        """As :class:`Kernel`."""
        return self._tensors[-1].numpy()


def build_kernel(
    problem: Problem, plan: LayerPlan, target: CpuTarget
) -> tuple[Any, str, tuple[np.ndarray, ...]]:
    """The compiled module, the name of its function, and the packed weights.

    The function takes data, packed weights, bias and output.
    """
    lanes = plan.lanes_on(target.lanes)
    packed = problem.packed(plan, lanes)
    func = build_conv(plan, EPILOGUE, packed.specs, lanes, target.vector_registers)
    built = tvm_ir.build_module(func, target.tvm_target())
    return built, str(func.attrs["global_symbol"]), packed.arrays
