"""Rows of nonzeros cut into slices, and checks that all packing formats share.

Rows of a slice are computed together, as many steps as its longest row has nonzeros. Sorted by
their number of nonzeros, longest first, rows of a slice are about equally long, and the trip counts
of consecutive slices repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .aligned import joined
from .errors import WeightsError


@dataclass(frozen=True)
class SortedRows:
    """The nonzeros of a matrix in the order of a kernel's steps.

    Attributes:
        order: int [rows]: the row of the matrix at each place, longest first.
        steps: int [slices]: steps of each slice.
        row: int [nonzeros]: each nonzero's place in ``order``.
        column: int [nonzeros]: its column of the matrix.
        step: int [nonzeros]: its step, counted through the slices.
        values: float32 [steps, rows of a slice], zeros where a row is shorter than its slice.
    """

    order: np.ndarray
    steps: np.ndarray
    row: np.ndarray
    column: np.ndarray
    step: np.ndarray
    values: np.ndarray

    def written(self, spare: int) -> np.ndarray:
        """The row of the matrix at each place of every slice, ``spare`` for none: int32."""
        rows = np.full(len(self.steps) * self.values.shape[1], spare, np.int32)
        rows[: len(self.order)] = self.order
        return rows

    def place(self, padding: np.ndarray, of_nonzeros: np.ndarray) -> np.ndarray:
        """A number for every place of :attr:`values`.

        Args:
            padding: what steps beyond the end of a row have, [steps, rows of a slice] or less.
            of_nonzeros: what each nonzero has, [nonzeros].
        """
        numbers = np.empty(self.values.shape, of_nonzeros.dtype)
        numbers[...] = padding
        numbers[self.step, self.row % self.values.shape[1]] = of_nonzeros
        return numbers.ravel()


def sort_rows(matrix: np.ndarray, slices: int, width: int) -> SortedRows:
    """Cut ``matrix``, float32 [rows, columns], into ``slices`` slices of ``width`` rows."""
    counts = np.count_nonzero(matrix, axis=1)
    order = np.argsort(-counts, kind="stable")
    matrix, counts = matrix[order], counts[order]
    steps = np.zeros(slices, int)
    longest = counts[::width]
    steps[: len(longest)] = longest
    row, column = np.nonzero(matrix)
    slice_starts, row_starts = np.cumsum(steps) - steps, np.cumsum(counts) - counts
    step = slice_starts[row // width] + np.arange(len(row)) - row_starts[row]
    values = np.zeros((int(steps.sum()), width), np.float32)
    values[step, row % width] = matrix[row, column]
    return SortedRows(order, steps, row, column, step, values)


def join_slices(
    steps: Sequence[int] | np.ndarray,
    rows: list[np.ndarray],
    places: list[np.ndarray],
    values: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The operands of a sparse kernel from those of its slices or blocks, in their order.

    Returns:
        first step of each slice and the end of the last, int32 [slices + 1]; the others joined.
    """
    starts = np.concatenate(([0], np.cumsum(steps))).astype(np.int32)
    return (
        starts,
        np.concatenate(rows),
        never_empty(joined(places)),
        never_empty(joined(values)),
    )


def check_weights(weight: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse what is not finite float32 of ``shape``.

    Raises:
        WeightsError: another shape or dtype, NaN or infinity.
    """
    if weight.shape != shape or weight.dtype != np.float32:
        raise WeightsError(f"weights must be float32 {shape}, got {weight.dtype} {weight.shape}")
    # A NaN is both least and greatest; unlike numpy.isfinite, neither makes an array.
    if not np.isfinite([weight.min(), weight.max()]).all():
        raise WeightsError("weights hold NaN or infinity")


def never_empty(array: np.ndarray) -> np.ndarray:
    """A buffer of no elements cannot be passed; a layer of zeros gets one that is never read."""
    return array if len(array) else np.zeros(1, array.dtype)
