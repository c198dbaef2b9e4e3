"""Kernels that copy runs of pixels, against the float64 oracle (tolerance: ``kernel_cases``)."""

import dataclasses
import functools

import numpy as np
import pytest
from kernel_cases import SPARSE_DIRECT, Case, check, conv, operands, run
from kernel_checks import check_threads

from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.geometry_sparse import SHORT_RUN, register_tile, sparse_layout

sparse = functools.partial(Case, m=0, algorithm=SPARSE_DIRECT, lanes=8)
pointwise = functools.partial(conv, r=1, padding=(0, 0, 0, 0))
ADDED = Epilogue(True, True, "relu")
CASES = [
    sparse(pointwise(7, 7, c=9, k=7), panel_vectors=7, channel_block=4),
    sparse(pointwise(7, 7, c=9, k=7), panel_vectors=0, rows_at_once=4, epilogue=ADDED),
    sparse(pointwise(7, 7, c=9, k=7, n=2), panel_vectors=4, rows_at_once=3, channel_block=4),
    sparse(pointwise(14, 14, c=9, k=10), panel_vectors=5, k_block=4, rows_at_once=2),
    sparse(pointwise(14, 14, c=9, k=10), panel_vectors=0, rows_at_once=4, channel_block=0),
    sparse(pointwise(14, 14, c=9, k=6), panel_vectors=12, rows_at_once=4, channel_block=5),
    sparse(pointwise(13, 13, c=6, k=8, groups=2, n=2), panel_vectors=3, rows_at_once=4),
    sparse(pointwise(3, 3, c=9, k=7), lanes=4, panel_vectors=0, rows_at_once=12),
    sparse(pointwise(2, 4, c=3, k=2), panel_vectors=1),
    sparse(pointwise(1, 9, c=3, k=2), panel_vectors=1, density=1.0),
    sparse(pointwise(5, 5, c=3, k=4), panel_vectors=2, density=0.0, rows_at_once=2),
    sparse(pointwise(23, 23, c=5, k=5), lanes=16, panel_vectors=0, registers=32),
    sparse(pointwise(16, 16, c=9, k=7, n=2), copied=True, panel_vectors=7, rows_at_once=4),
    sparse(
        pointwise(8, 12, c=9, k=6), copied=True, panel_vectors=0, rows_at_once=2, epilogue=ADDED
    ),
    sparse(pointwise(16, 24, c=6, k=8, groups=2, stride=2), copied=True, panel_vectors=3),
    sparse(pointwise(16, 19, c=9, k=5), copied=True, panel_vectors=5, lanes=8, registers=32),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_is_the_oracle(case):
    assert sparse_layout(case.plan, case.lanes).kind == "runs"
    check(case)


def test_the_cases_are_of_every_kind():
    layouts = [sparse_layout(c.plan, c.lanes) for c in CASES]
    pairs = zip(layouts, CASES, strict=True)
    tiles = [register_tile(layout, c.registers) for layout, c in pairs]
    assert {(x.panels > 1, x.reach > x.line) for x in layouts} >= {(True, False), (False, True)}
    several = [x.reach > x.line for x, tile in zip(layouts, tiles, strict=True) if tile.count > 1]
    assert set(several) == {True, False}
    assert {x.reach > SHORT_RUN for x in layouts} == {True, False}
    assert any(x.total_rows % x.rows for x in layouts)


def test_some_could_have_been_read_in_place():
    plans = [dataclasses.replace(c.plan, copied=False) for c in CASES if c.copied]
    assert {sparse_layout(plan, 8).kind for plan in plans} == {"map"}


def test_nothing_is_read_beyond_the_map():
    """The last image ends where memory that may be read ends: its neighbour holds NaN."""
    case = CASES[2]
    x, *others = operands(case)
    out = run(case, x, *others)
    x[1] = np.nan
    again = run(case, x, *others)
    assert np.array_equal(out[0], again[0])
    assert np.isnan(again[1]).any()


def test_same_bits_with_any_number_of_threads():
    check_threads(CASES[2])
    check_threads(CASES[3])
