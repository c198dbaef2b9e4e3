"""Calls with any number of rows, put together from calls of functions for some batch sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._compat import from_dlpack
from .artefact import Description, TensorInfo, batch_entry
from .config import LayerPlan
from .config_linear import AnyPlan
from .cost_quantities import FLOAT_BYTES, lines_beyond
from .errors import ConfigError, ShapeError
from .exchange import aligned_empty, any_tensor, array_of
from .machines import Machines

# What a network whose batch is open is compiled for. One image alone must not wait for others.
# Convolutions gain up to 4 images, layers that wait for their weights up to 16, and 4 keeps what is
# left over from taking many calls. Mcycles per image that plans predict for 1, 4 and 16 images (two
# threads, skylake-avx512): ResNet-18 24.8, 20.4, 19.4, with 90 % zeros 8.9, 6.6, 6.8; AlexNet 29.2,
# 11.9, 7.7, with 90 % zeros 7.1, 3.2, 2.3.
DEFAULT_SIZES = (1, 4, 16)

# Cycles that a call takes besides its layers: the virtual machine, and copying rows in and out.
_CALL = 50_000
# The same in rows, for networks without a prediction.
_CALL_ROWS = 0.5

# What a line of a convolution's output costs, written and read again, where the last cache does not
# keep it from one layer to the next; plans know nothing of what comes after them. Fitted to
# benchmarks/batch_pieces.py, 90 % zeros, one core of a Zen 3: 16 images at once take 4 ms an image
# more than 16 calls in ResNet-50, 1.5 ms in MobileNetV2, which is 12 to 18 cycles a line, and 4 at
# once 2.2 and 0.3 ms.
_FAR_LINE = 15.0
_LAST_CACHE = 8 << 20  # bytes of it that a network can hope for


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
    """What a call of each batch size is predicted to take: cycles.

    Layers that are left as they are have no prediction; where nothing has one, it is rows.
    """
    plans = {size: description.plan_of(size) for size in description.batches}
    cycles = {size: sum(plan.cost_cycles for plan in layers) for size, layers in plans.items()}
    if not all(cycles.values()):
        return {size: size + _CALL_ROWS for size in cycles}
    return {size: cost + sum(map(_far, plans[size])) + _CALL for size, cost in cycles.items()}


def _far(plan: AnyPlan) -> float:
    """Cycles for the output of a convolution that the last cache does not keep."""
    if not isinstance(plan, LayerPlan) or plan.conv is None:
        return 0.0
    shape = plan.conv
    numbers = shape.n * shape.k * shape.oh * shape.ow
    return _FAR_LINE * lines_beyond(FLOAT_BYTES * numbers, _LAST_CACHE)


class Pieces:
    """Which batch sizes a number of rows is put together from: what is predicted to be fastest.

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
        count = max(0, -(-(rows - len(self._best) + 1) // self._bulk))
        pieces, left = [self._bulk] * count, rows - count * self._bulk
        while left > 0:
            pieces.append(self._best[left][2])
            left -= pieces[-1]
        return tuple(sorted(pieces, reverse=True))


class AnyBatch:
    """Runs a network whose batch is open; safe to call from several threads.

    Args:
        machines: run one batch size.
        description: what the network is.
    """

    def __init__(self, machines: Machines, description: Description) -> None:
        self._machines = machines
        self._description = description
        self._pieces = Pieces(predicted_costs(description))

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        """Outputs for TVM's tensors; no later call changes them.

        Raises:
            ShapeError: inputs of different batch sizes, or of none.
            ArtefactError: this CPU cannot run the code.
        """
        rows = self._rows(tensors)
        pieces = self._pieces(rows)
        if pieces == (rows,):
            return self._machines(tensors, batch_entry(rows))
        outputs = [aligned_empty(info.of_batch(rows)) for info in self._description.outputs]
        start = 0
        for size in pieces:
            taken = [self._part(*pair, start, size) for pair in self._named(tensors)]
            results = self._machines(taken, batch_entry(size))
            for output, result in zip(outputs, results, strict=True):
                part = output[start : start + size]
                part[...] = array_of(result)[: len(part)]
            start += size
        return list(map(from_dlpack, outputs))

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
