"""Emit ``y = matrix @ x`` for vector expressions, sharing common terms of rows or columns.

Points come in pairs +p and -p. Two rows of B^T (two columns of A^T) of such a pair agree in the
even powers and differ in sign in the odd ones, so their sum and difference are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from .. import _compat as tvm_ir
from ..cook_toom import Matrix

Row = Sequence[Fraction]


def apply_matrix(matrix: Matrix, xs: Sequence[Any], lanes: int) -> list[Any]:
    """Expressions of ``matrix @ xs``; every result is bound to a variable.

    Args:
        matrix: exact coefficients [rows][columns].
        xs: one vector expression per column, bound by the caller.
        lanes: lanes of every expression.
    """
    by_rows = _row_pairs(matrix)
    if by_rows:
        return _from_row_pairs(matrix, by_rows, xs, lanes)
    return _from_column_pairs(matrix, xs, lanes)


def combine(row: Row, xs: Sequence[Any], lanes: int) -> Any:
    """The expression of one linear combination, or None if all coefficients are zero."""
    terms = sorted((t for t in zip(row, xs, strict=True) if t[0]), key=lambda t: t[0] != 1)
    total = None
    for coefficient, x in terms:
        if total is None:
            total = x if coefficient == 1 else tvm_ir.broadcast(float(coefficient), lanes) * x
        elif abs(coefficient) == 1:
            total = total + x if coefficient > 0 else total - x
        else:
            total = total + tvm_ir.broadcast(float(coefficient), lanes) * x
    return total


def _signs(a: Row, b: Row) -> tuple[list[int], list[int]] | None:
    """Positions where ``a`` and ``b`` are equal and where they are opposite, if nothing else."""
    nonzero = [i for i in range(len(a)) if a[i] or b[i]]
    even = [i for i in nonzero if a[i] == b[i]]
    odd = [i for i in nonzero if a[i] == -b[i]]
    return (even, odd) if even and odd and len(even) + len(odd) == len(nonzero) else None


def _pairs(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Neighbouring rows that share their even and odd parts."""
    found, i = [], 0
    while i + 1 < len(rows):
        pair = _signs(rows[i], rows[i + 1]) is not None
        if pair:
            found.append((i, i + 1))
        i += 2 if pair else 1
    return found


def _row_pairs(matrix: Matrix) -> list[tuple[int, int]]:
    """Pairs of rows worth sharing: those of more than two terms."""
    return [p for p in _pairs(matrix) if sum(map(bool, matrix[p[0]])) > 2]


def _from_row_pairs(matrix: Matrix, pairs: list, xs: Sequence[Any], lanes: int) -> list[Any]:
    results: dict[int, Any] = {}
    for a, b in pairs:
        even, odd = (
            [c if i in positions else Fraction(0) for i, c in enumerate(matrix[a])]
            for positions in _signs(matrix[a], matrix[b])
        )
        factor = _factor(odd)
        first = tvm_ir.bind(combine(even, xs, lanes))
        second = tvm_ir.bind(combine([c / factor for c in odd], xs, lanes))
        for row, sign in ((a, 1), (b, -1)):
            results[row] = tvm_ir.bind(_add(first, sign * factor, second, lanes))
    for i, row in enumerate(matrix):
        if i not in results:
            results[i] = tvm_ir.bind(combine(row, xs, lanes))
    return [results[i] for i in range(len(matrix))]


def _add(first: Any, factor: Fraction, second: Any, lanes: int) -> Any:
    """``first + factor * second``."""
    if abs(factor) == 1:
        return first + second if factor > 0 else first - second
    return tvm_ir.multiply_add(tvm_ir.broadcast(float(factor), lanes), second, first, lanes)


def _factor(row: Row) -> Fraction:
    """What to take out of ``row``: the multiply-adds that join it to its partner multiply by it for
    nothing, and a term without a coefficient saves a multiplication. Other coefficients must stay
    exact in binary.
    """
    sizes = sorted({abs(c) for c in row if c}, key=lambda c: (c != 1, c))
    for size in sizes:
        denominators = [(c / size).denominator for c in row]
        if all(d & (d - 1) == 0 for d in denominators):
            return size
    return Fraction(1)


def _from_column_pairs(matrix: Matrix, xs: Sequence[Any], lanes: int) -> list[Any]:
    columns = list(zip(*matrix, strict=True))
    terms, coefficients = list(xs), [list(row) for row in matrix]
    for a, b in _pairs(columns):
        even, odd = _signs(columns[a], columns[b])
        terms[a], terms[b] = tvm_ir.bind(xs[a] + xs[b]), tvm_ir.bind(xs[a] - xs[b])
        for i in even:
            coefficients[i][b] = Fraction(0)
        for i in odd:
            coefficients[i][a], coefficients[i][b] = Fraction(0), coefficients[i][a]
    return [tvm_ir.bind(combine(row, terms, lanes)) for row in coefficients]
