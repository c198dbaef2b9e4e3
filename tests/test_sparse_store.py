"""Kernels that add a map: outputs over it, in its memory, are what they are beside it.

Bits are equal, not close: whatever is stored twice is added twice.
"""

import functools

import numpy as np
import pytest
from kernel_cases import SPARSE_DIRECT, Case, conv, operands
from kernel_checks import check_in_place, over_what_is_added

from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.geometry_sparse import register_tile, sparse_layout
from tvm_sparsewino.schedules.build import adds_in_place
from tvm_sparsewino.schedules.sparse_store import stores_once

ADDED = Epilogue(True, True, "relu")
sparse = functools.partial(
    Case, m=0, algorithm=SPARSE_DIRECT, lanes=8, rows_at_once=2, epilogue=ADDED
)
NONE = (0, 0, 0, 0)
pointwise = functools.partial(conv, r=1, padding=NONE, c=9, k=7)

CASES = [
    sparse(pointwise(7, 7), panel_vectors=0),  # one tile, whose last vector is moved back
    sparse(pointwise(7, 7), panel_vectors=0, rows_at_once=3),  # so is the second tile
    sparse(pointwise(7, 7), panel_vectors=0, rows_at_once=3, channel_block=4),
    sparse(pointwise(14, 14, n=2), panel_vectors=3, rows_at_once=4),  # the last panel, by 20 pixels
    sparse(pointwise(5, 11), panel_vectors=3),  # by 17: no vector that is another's
    sparse(pointwise(14, 14), panel_vectors=5, rows_at_once=3),  # panels and tiles
    sparse(pointwise(14, 14), panel_vectors=0, rows_at_once=1, lanes=4),
    sparse(pointwise(8, 16), panel_vectors=5),  # read in place
    sparse(pointwise(8, 16), panel_vectors=16, rows_at_once=3, channel_block=4),
    sparse(pointwise(8, 16), panel_vectors=4),  # nothing is moved
    sparse(pointwise(9, 9, stride=2), panel_vectors=2),  # thinned
    sparse(pointwise(14, 14, k=5), panel_vectors=2, k_block=3, density=1.0),
    sparse(pointwise(3, 5), panel_vectors=0, density=0.0, epilogue=Epilogue(residual=True)),
    sparse(pointwise(6, 9), panel_vectors=3, epilogue=Epilogue(True, True, "prelu")),
    sparse(conv(6, 6, c=9, k=6, r=1, padding=NONE, groups=3), panel_vectors=3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_output_over_what_is_added(case):
    check_in_place(case)


def test_the_same_on_two_threads():
    case = CASES[3]
    values = operands(case)
    one, two = (over_what_is_added(case, values, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_the_cases_are_of_every_kind():
    layouts = [sparse_layout(c.plan, c.lanes) for c in CASES]
    tiles = [register_tile(x, c.registers) for x, c in zip(layouts, CASES, strict=True)]
    pairs = list(zip(layouts, tiles, strict=True))
    moved_panel = [x.total_rows % x.rows != 0 for x in layouts]
    moved_tile = [x.reach % (t.vectors * x.lanes) != 0 for x, t in pairs]
    moved_vector = [x.reach > x.line for x in layouts]
    both = {(a, b) for a in (False, True) for b in (False, True)}
    assert {*zip(moved_panel, moved_tile, strict=True)} == both
    assert {*zip(moved_vector, [t.count > 1 for t in tiles], strict=True)} == both
    assert {x.in_place for x in layouts} == {x.is_thinned for x in layouts} == {True, False}


@pytest.mark.parametrize(
    ("shape", "epilogue", "algorithm"),
    [
        (conv(7, 7), ADDED, SPARSE_DIRECT),  # rows of several taps are stored twice
        (pointwise(7, 7), Epilogue(True), SPARSE_DIRECT),
        (conv(7, 7, c=4, k=4, groups=4), ADDED, "dense_direct"),  # depthwise
    ],
)
def test_other_kernels_do_not_claim_it(shape, epilogue, algorithm):
    case = Case(shape, m=0, algorithm=algorithm, lanes=8)
    assert not adds_in_place(case.plan, epilogue, 8)


def test_planes_store_twice():
    assert not stores_once(sparse_layout(sparse(conv(7, 7)).plan, 8))
    assert stores_once(sparse_layout(CASES[0].plan, 8))
