"""Calls with any number of rows, put together from functions for a few batch sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ._compat import from_dlpack
from .artefact import Description, TensorInfo, batch_entry
from .batch_costs import CALL_ROWS, Pieces, Round, call_cycles, rounds
from .crew import Crew
from .errors import ConfigError, ShapeError
from .exchange import aligned_empty, any_tensor, array_of
from .machines import Machines
from .thread_pool import threads_in_use

# What a network whose batch is open is compiled for. One image alone must not wait for others.
# Convolutions gain up to 4 images, layers that wait for their weights up to 16, and 4 keeps what is
# left over from taking many calls. Mcycles per image that plans predict for 1, 4 and 16 images (two
# threads, skylake-avx512): ResNet-18 24.8, 20.4, 19.4, with 90 % zeros 8.9, 6.6, 6.8; AlexNet 29.2,
# 11.9, 7.7, with 90 % zeros 7.1, 3.2, 2.3.
DEFAULT_SIZES = (1, 4, 16)


def checked_sizes(sizes: Iterable[int]) -> tuple[int, ...]:
    """Batch sizes in order.

    Raises:
        ConfigError: none, one twice, or one that is no positive number.
    """
    given = tuple(sizes)
    fit = all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in given)
    if not given or not fit or len(set(given)) != len(given):
        raise ConfigError(f"batches must be different positive numbers, got {given}")
    return tuple(sorted(given))


def predicted_costs(description: Description) -> dict[int, float]:
    """What a call of each batch size is predicted to take on one thread: cycles.

    Where a size has no prediction, it is rows for all.
    """
    plans = {size: description.plan_of(size) for size in description.batches}
    cycles = {size: call_cycles(plan, description.threads) for size, plan in plans.items()}
    return cycles if all(cycles.values()) else {size: size + CALL_ROWS for size in cycles}


class AnyBatch:
    """Runs a network that consists of functions for some batch sizes; safe to call from several
    threads.

    Args:
        machines: run one batch size.
        description: what the network is.
    """

    def __init__(self, machines: Machines, description: Description) -> None:
        self._machines = machines
        self._description = description.opened()
        self._costs = predicted_costs(description)
        self._pieces = Pieces(self._costs)
        self._crew = Crew()

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        """Outputs for TVM's tensors; no later call changes them.

        As many threads work as the calling thread's kernels use. Results do not depend on them.

        Raises:
            ShapeError: inputs of different batch sizes, or of none.
            ArtefactError: this CPU cannot run the code.
        """
        rows = self._rows(tensors)
        pieces = self._pieces(rows)
        if pieces == (rows,):
            return self._machines(tensors, batch_entry(rows))
        outputs = [aligned_empty(info.of_batch(rows)) for info in self._description.outputs]
        starts = _starts(pieces)
        for part in rounds(pieces, self._costs, threads_in_use()):
            self._run(part, starts, tensors, outputs)
        return list(map(from_dlpack, outputs))

    def _run(
        self, part: Round, starts: Iterator[int], tensors: Sequence[Any], outputs: list[np.ndarray]
    ) -> None:
        piece = partial(self._piece, tensors, outputs, part.size)
        tasks = [partial(piece, next(starts)) for _ in range(part.count)]
        self._crew.run(tasks, part.at_once, part.threads)

    def _piece(
        self, tensors: Sequence[Any], outputs: list[np.ndarray], size: int, start: int
    ) -> None:
        """Compute ``size`` rows."""
        taken = [self._part(*pair, start, size) for pair in self._named(tensors)]
        results = self._machines(taken, batch_entry(size))
        for output, result in zip(outputs, results, strict=True):
            part = output[start : start + size]
            part[...] = array_of(result)[: len(part)]

    def _named(self, tensors: Sequence[Any]) -> Iterable[tuple[TensorInfo, Any]]:
        return zip(self._description.inputs, tensors, strict=True)

    def _rows(self, tensors: Sequence[Any]) -> int:
        rows = {i.name: int(t.shape[0]) for i, t in self._named(tensors) if i.any_batch}
        if len(set(rows.values())) != 1:
            raise ShapeError(f"inputs must have one batch size, got {rows}")
        if 0 in rows.values():
            raise ShapeError(f"a batch has at least one row, got {rows}")
        return next(iter(rows.values()))

    def _part(self, info: TensorInfo, tensor: Any, start: int, size: int) -> Any:
        """Rows of an input, filled up with zeros."""
        if not info.any_batch:
            return tensor
        rows, wanted = array_of(tensor)[start : start + size], info.of_batch(size)
        if len(rows) == size:
            return any_tensor(wanted, rows)
        filled = aligned_empty(wanted)
        filled[: len(rows)] = rows
        filled[len(rows) :] = 0
        return from_dlpack(filled)


def _starts(pieces: Iterable[int]) -> Iterator[int]:
    """The first row of every piece."""
    start = 0
    for size in pieces:
        yield start
        start += size
