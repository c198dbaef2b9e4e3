"""The cost of a training step of a converted network, compared with the dense network's."""

from __future__ import annotations

import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import host
from .precision import mixed

if TYPE_CHECKING:
    from .phases import Setting

_REPEATS = 7


def measure_cost(setting: Setting, dense: nn.Module, pruned: nn.Module) -> dict[str, Any]:
    """Time and peak memory of a training step, forward and backward, of both networks.

    In the experiment's precision, mixed where training is.

    Time: the two alternate; medians, and the median of the ratios of neighbours. CPU time on CPUs,
    so that other work on the machine disturbs little. Memory: the peak over what the network and
    the batch take; on CPUs that of a process of its own, and None where the system does not tell or
    that process ends before it answers, as one that gets too little memory does.

    Args:
        setting: of the experiment.
        dense, pruned: trained; not changed.
    """
    batch = setting.batches(0)(0)
    networks = [copy.deepcopy(x).train() for x in (dense, pruned)]
    steps = [_step(x, batch, setting.autocast) for x in networks]
    pairs = _alternating(steps, setting.device)
    peaks = [_peak(x, batch, setting) for x in networks]
    known = None not in peaks and peaks[0] > 0
    return {
        "batch": len(batch[1]),
        "dense_ms": statistics.median(a for a, _ in pairs),
        "pruned_ms": statistics.median(b for _, b in pairs),
        "time_ratio": statistics.median(b / a for a, b in pairs),
        "dense_peak_bytes": peaks[0],
        "pruned_peak_bytes": peaks[1],
        "memory_ratio": peaks[1] / peaks[0] if known else None,
    }


def _step(
    model: nn.Module, batch: tuple[Tensor, Tensor], autocast: Callable[[], Any]
) -> Callable[[], None]:
    images, labels = batch

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with autocast():
            scores = model(images)
        functional.cross_entropy(scores.to(images.dtype), labels).backward()

    return step


def _alternating(steps: list[Callable[[], None]], device: torch.device) -> list[tuple[float, ...]]:
    """Milliseconds of each step in turn, after one untimed call each."""
    for step in steps:
        step()
    return [tuple(_milliseconds(step, device) for step in steps) for _ in range(_REPEATS)]


def _milliseconds(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (clock() - start)


def _peak(model: nn.Module, batch: tuple[Tensor, Tensor], setting: Setting) -> int | None:
    """Bytes over those before the first step."""
    device = setting.device
    if device.type == "cuda":
        model.zero_grad(set_to_none=True)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _step(model, batch, setting.autocast)()
        return torch.cuda.max_memory_allocated(device) - before
    if not host.can_reset_peak():
        return None
    model.zero_grad(set_to_none=True)
    context = multiprocessing.get_context("spawn")
    # As arrays: tensors would be shared with this process, not copied.
    arrays = [x.numpy() for x in batch]
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            precision = setting.experiment.precision
            threads = torch.get_num_threads()
            return pool.submit(_peak_here, model, arrays, threads, precision).result()
        except BrokenProcessPool:
            return None


def _peak_here(model: nn.Module, arrays: list[Any], threads: int, precision: str) -> int:
    torch.set_num_threads(threads)
    images, labels = (torch.from_numpy(x.copy()) for x in arrays)
    own = partial(mixed, precision, torch.device("cpu"))
    step = _step(copy.deepcopy(model), (images, labels), own)
    before = host.resident_bytes(host.HELD)
    host.reset_peak()
    step()
    step()
    return host.resident_bytes(host.PEAK) - before
