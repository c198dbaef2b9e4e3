"""Profile a compiled network on this machine, and what this machine can do."""

from __future__ import annotations

import time

import numpy as np
from tvm import relax

from .. import driver
from ..errors import ConfigError
from ..exchange import any_tensor
from ..executable import Executable
from ..profile import NetworkTime, profile
from ..schedules.target import parse_target
from ..thread_pool import use_threads
from .machine import fma_peak
from .profile_figures import Limits, copy_rates

_SEED = 0  # of the inputs
_FEW, _CALLS = 8, 200  # numbers, and calls of a kernel whose own work is nothing
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}


def profile_network(
    exe: Executable, runs: int, clock: str = "wall", batch: int | None = None
) -> NetworkTime:
    """Times of a network and its kernels on random inputs.

    Args:
        exe: a compiled network.
        runs: calls that are measured.
        clock: "wall", or "cpu" for one thread on a machine that others use.
        batch: which of the batch sizes, where the batch is open or run in pieces; the smallest if
            None.

    Raises:
        ConfigError: runs below 1, another clock, "cpu" with more than one thread, or a batch size
            that there are no kernels for.
    """
    if runs < 1:
        raise ConfigError(f"runs must be at least 1, got {runs}")
    if clock not in CLOCKS or (clock == "cpu" and exe.num_threads > 1):
        raise ConfigError(f"clock {clock!r} cannot time {exe.num_threads} threads")
    sizes = exe.description.batches
    if batch is not None and batch not in sizes:
        raise ConfigError(f"there are kernels for batches {list(sizes)}, not for {batch}")
    rows = batch or min(sizes, default=1)
    rng = np.random.default_rng(_SEED)
    inputs = [info.of_batch(rows) for info in exe.description.opened().inputs]
    arrays = [
        rng.standard_normal(info.shape, np.float32)
        if info.dtype == "float32"
        else np.zeros(info.shape, info.dtype)
        for info in inputs
    ]
    tensors = [any_tensor(*pair) for pair in zip(inputs, arrays, strict=True)]
    use_threads(exe.num_threads)
    return profile(exe.machines, exe.description, tensors, runs, CLOCKS[clock])


def machine_limits(exe: Executable, clock: str = "wall") -> Limits:
    """Peak, copies, clock and calls of this machine, for as many threads as ``exe`` uses; measured.

    Args:
        exe: a compiled network.
        clock: as for :func:`profile_network`; what looking at it takes counts with the calls.
    """
    target = parse_target("native")
    peak = fma_peak(target)
    cycles = peak / (2 * target.vectors_per_cycle * target.lanes)
    threads = exe.num_threads
    return Limits(threads * peak, copy_rates(threads), cycles, call_seconds(clock))


def call_seconds(clock: str = "wall") -> float:
    """What a kernel that maps a few numbers takes in a profile; the least of many."""
    x = relax.Var("x", relax.TensorType((_FEW,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(relax.op.nn.relu(x)))
        builder.emit_func_output(result)
    exe = driver.compile(builder.get(), num_threads=1)
    (kernel,) = profile_network(exe, _CALLS, clock).kernels
    return min(kernel.seconds)
