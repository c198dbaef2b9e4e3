"""Emitted transforms, compiled and run, against the same matrix in exact arithmetic."""

from fractions import Fraction as Q

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_sparsewino import _compat
from tvm_sparsewino._compat import T
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.schedules.linear_transform import apply_matrix

LANES = 4


def as_matrix(rows):
    return tuple(tuple(map(Q, row)) for row in rows)


def build(matrix):
    with _compat.prim_func("transform") as builder:
        x = _compat.arg("x", (len(matrix[0]) * LANES,), "float32")
        y = _compat.arg("y", (len(matrix) * LANES,), "float32")
        columns = range(len(matrix[0]))
        xs = [_compat.bind(x[_compat.ramp(i * LANES, 1, LANES)]) for i in columns]
        for i, value in enumerate(apply_matrix(matrix, xs, LANES)):
            T.buffer_store(y, value, [_compat.ramp(i * LANES, 1, LANES)])
    return builder.get()


def apply_compiled(matrix, x):
    module = _compat.build_module(build(matrix), _compat.make_target({"kind": "llvm"}))
    y = _compat.runtime_tensor(np.full((len(matrix), LANES), np.nan, np.float32).ravel())
    module["transform"](_compat.runtime_tensor(x.ravel()), y)
    return y.numpy().reshape(-1, LANES)


def check(matrix, rng):
    """Small integers times fractions: what rounding there is comes from coefficients like 1/3."""
    x = rng.integers(-8, 9, (len(matrix[0]), LANES)).astype(np.float32)
    exact = [
        [sum(c * int(v) for c, v in zip(row, lane, strict=True)) for lane in x.T] for row in matrix
    ]
    exact = np.array(exact, dtype=float)
    bound = np.abs(np.array(matrix, dtype=float)) @ np.abs(x)
    error = np.abs(apply_compiled(matrix, x) - exact)
    assert (error <= 2.0**-24 * 2 * len(matrix[0]) * bound).all()


@pytest.mark.parametrize(("m", "r"), [(1, 1), (2, 3), (4, 3), (6, 3), (4, 5), (3, 2)])
def test_transforms_of_the_algorithms(m, r, rng):
    algorithm = cook_toom(m, r)
    check(algorithm.bt, rng)
    check(algorithm.at, rng)


@pytest.mark.parametrize(
    "rows",
    [
        [[1]],
        [[-1]],
        [["-1/2", 0, 3]],
        [[0, 2, 1], [0, -2, 1], [1, 1, 1]],  # only two terms: not worth sharing
        [[1, 2, 3], [1, -2, 3], [5, 0, 0]],  # a pair of rows first
        [[5, 0, 0], [1, 2, 3], [1, -2, 3]],  # and later
        [[1, 2, 3], [1, 2, 3]],  # equal rows are no pair
        [[1, 2, 3], [-1, -2, -3]],  # nor are opposite ones
        [[1, 1, 1, 0], [0, 2, -2, 1]],  # a pair of columns
        [[1, 1, 1, 1], [0, 2, -2, 0], [1, 4, 4, 9], [3, 8, -8, 1]],
        [[3, 1, 6, 1], [-3, 1, -6, 1]],  # a factor of the odd part
        [["1/3", 1, "1/2", 1], ["-1/3", 1, "-1/2", 1]],  # one that leaves 3/2
        [["1/3", 1, "1/5", 1], ["-1/3", 1, "-1/5", 1]],  # none that leaves binary fractions
        [[2, 1, 1, 1, 1], [0, 3, -3, 1, -1]],  # two pairs of columns, side by side
    ],
    ids=str,
)
def test_shapes_of_sharing(rows, rng):
    check(as_matrix(rows), rng)


@settings(max_examples=8)
@given(st.data())
def test_matrices_with_planted_pairs(data):
    """Random small matrices whose second row or column mirrors the first, and some without."""
    columns, rows = data.draw(st.integers(2, 5)), data.draw(st.integers(2, 5))
    entries = st.integers(-3, 3)
    matrix = [[data.draw(entries) for _ in range(columns)] for _ in range(rows)]
    signs = [data.draw(st.sampled_from([-1, 1])) for _ in range(max(rows, columns))]
    kind = data.draw(st.sampled_from(["rows", "columns", "none"]))
    if kind == "rows":
        matrix[1] = [s * c for s, c in zip(signs, matrix[0], strict=False)]
    elif kind == "columns":
        for s, row in zip(signs, matrix, strict=False):
            row[1] = s * row[0]
    for row in matrix:
        if not any(row):
            row[0] = 1
    check(as_matrix(matrix), np.random.default_rng(0))


@pytest.mark.parametrize(("part", "written_out", "shared"), [("bt", 16, 12), ("at", 14, 10)])
def test_sharing_saves_additions(part, written_out, shared):
    """F(4, 3) in one dimension; indices are constants, so sums in the text are of vectors.

    Where a sum is a call, that is a multiply-add.
    """
    matrix = getattr(cook_toom(4, 3), part)
    assert sum(sum(map(bool, row)) - 1 for row in matrix) == written_out
    text = build(matrix).script()
    sums = text.count(" + ") + text.count(" - ") + text.count("call_llvm_pure_intrin")
    assert sums == shared
