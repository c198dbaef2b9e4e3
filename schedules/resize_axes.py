"""Which numbers a resized row is made of, and with which weights.

Output i of an axis is at a rational coordinate of the input; what it takes of the numbers around
depends on the method: the nearest one, the two beside it (linear) or four (cubic: Keys, Cubic
Convolution Interpolation, 1981). Coordinates are exact here, as fractions of whole numbers, so that
nothing depends on how floating-point numbers are rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Coordinate of output i, of ``target`` made from ``size`` numbers: numerator and denominator.
_Coordinate = Callable[[np.ndarray, int, int], tuple[np.ndarray, int]]


def _half_pixel(i: np.ndarray, size: int, target: int) -> tuple[np.ndarray, int]:
    return (2 * i + 1) * size - target, 2 * target


def _pytorch_half_pixel(i: np.ndarray, size: int, target: int) -> tuple[np.ndarray, int]:
    return _half_pixel(i, size, target) if target > 1 else (0 * i, 1)


def _asymmetric(i: np.ndarray, size: int, target: int) -> tuple[np.ndarray, int]:
    return i * size, target


def _align_corners(i: np.ndarray, size: int, target: int) -> tuple[np.ndarray, int]:
    return i * (size - 1), max(target - 1, 1)


def _tf_half_pixel_for_nn(i: np.ndarray, size: int, target: int) -> tuple[np.ndarray, int]:
    return (2 * i + 1) * size, 2 * target


COORDINATES: dict[str, _Coordinate] = {
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "asymmetric": _asymmetric,
    "align_corners": _align_corners,
    "tf_half_pixel_for_nn": _tf_half_pixel_for_nn,
}


def _half_to_even(n: np.ndarray, d: int) -> np.ndarray:
    up = (2 * n + d) // (2 * d)
    return up - ((2 * n + d) % (2 * d) == 0) * (up % 2)


# The whole number that is nearest to n / d.
ROUNDINGS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "round": _half_to_even,
    "round_prefer_floor": lambda n, d: -((d - 2 * n) // (2 * d)),
    "round_prefer_ceil": lambda n, d: (2 * n + d) // (2 * d),
    "floor": lambda n, d: n // d,
    "ceil": lambda n, d: -(-n // d),
}


@dataclass(frozen=True)
class ResizeAxis:
    """How the numbers along one axis come from those of the input.

    Attributes:
        size: numbers of the input.
        first: [outputs], the first number that each output takes, the others follow; where that is
            outside of the input, its first or last number is taken.
        weights: [outputs, taps], what each is multiplied with.
    """

    size: int
    first: np.ndarray
    weights: np.ndarray

    @property
    def outputs(self) -> int:
        """Numbers of the output."""
        return len(self.first)

    @property
    def taps(self) -> int:
        """Numbers that each output is made of."""
        return self.weights.shape[1]

    @property
    def keeps(self) -> bool:
        """Whether the output is the input."""
        return self.taps == 1 and np.array_equal(self.first, np.arange(self.size))

    def period(self, most: int) -> tuple[int, int] | None:
        """Outputs after which everything repeats itself, and how many inputs further; None where
        those are more than ``most`` or the output is not made of whole periods.
        """
        for outputs in range(1, min(most, self.outputs) + 1):
            steps = self.first[outputs:] - self.first[:-outputs]
            same = np.array_equal(self.weights[outputs:], self.weights[:-outputs])
            if same and self.outputs % outputs == 0 and not np.ptp(steps if len(steps) else [0]):
                return outputs, int(steps[0]) if len(steps) else 0
        return None

    def table(self) -> Taps:
        """The same as a table."""
        return Taps(self.size, self.taken(), self.weights)

    def taken(self) -> np.ndarray:
        """[outputs, taps]: the numbers that each output takes, all inside of the input."""
        return np.clip(self.first[:, None] + np.arange(self.taps), 0, self.size - 1)


@dataclass(frozen=True)
class Taps:
    """How the numbers along an axis are summed from those of the input, in a table.

    Attributes:
        size: numbers of the input.
        taken: int [outputs, taps], which each output takes; a number may be taken twice.
        weights: float32 [outputs, taps], what each is multiplied with.
    """

    size: int
    taken: np.ndarray
    weights: np.ndarray

    @property
    def outputs(self) -> int:
        """Numbers of the output."""
        return len(self.taken)

    @property
    def taps(self) -> int:
        """Numbers that each output is made of."""
        return self.taken.shape[1]


def adaptive_mean(size: int, target: int) -> Taps:
    """Every output is the mean of a window, from floor(i size / target) to the next one's start,
    rounded up: windows may overlap, and have two sizes.

    The last number of a shorter window is taken twice, in halves: with a weight of 0 for something
    else, infinity there would make it NaN.
    """
    i = np.arange(target)
    first, last = i * size // target, -(-(i + 1) * size // target)
    lengths = (last - first)[:, None]
    tap = np.arange(lengths.max())
    repeats = np.where(tap < lengths - 1, 1, lengths.max() - lengths + 1)
    taken = np.minimum(first[:, None] + tap, last[:, None] - 1)
    return Taps(size, taken, (1.0 / (lengths * repeats)).astype(np.float32))


def nearest(size: int, target: int, coordinate: str, rounding: str) -> ResizeAxis:
    """Every output is the input that is nearest to it, in the sense of ``rounding``."""
    n, d = COORDINATES[coordinate](np.arange(target), size, target)
    return _axis(size, ROUNDINGS[rounding](n, d), np.ones((target, 1)))


def linear(size: int, target: int, coordinate: str) -> ResizeAxis:
    """Every output is between the two inputs beside it."""
    n, d = COORDINATES[coordinate](np.arange(target), size, target)
    t = (n % d) / d
    return _axis(size, n // d, np.stack([1 - t, t], 1))


def cubic(size: int, target: int, coordinate: str, alpha: float, exclude: bool) -> ResizeAxis:
    """Every output is on a cubic through the four inputs around it.

    Args:
        size, target: numbers of the input and of the output.
        coordinate: a key of ``COORDINATES``.
        alpha: the slope that the kernel has at 1.
        exclude: numbers outside of the input count nothing, and the other weights more.
    """
    n, d = COORDINATES[coordinate](np.arange(target), size, target)
    first, t = n // d - 1, (n % d) / d
    near = [(alpha + 2) * s**3 - (alpha + 3) * s**2 + 1 for s in (t, 1 - t)]
    far = [alpha * (s**3 - 5 * s**2 + 8 * s - 4) for s in (1 + t, 2 - t)]
    weights = np.stack([far[0], *near, far[1]], 1)
    if exclude:
        number = first[:, None] + np.arange(4)
        weights = np.where((number < 0) | (number >= size), 0, weights)
        weights = weights / weights.sum(1, keepdims=True)
    return _axis(size, first, weights)


def _axis(size: int, first: np.ndarray, weights: np.ndarray) -> ResizeAxis:
    """An axis without the first and last taps that multiply with 0 for every output."""
    used = np.flatnonzero(weights.any(0))
    weights = weights[:, used[0] : used[-1] + 1].astype(np.float32)
    return ResizeAxis(size, first + used[0], weights)
