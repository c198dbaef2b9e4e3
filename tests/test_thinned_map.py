"""Strided filters of one tap, whose pixels are copied into a map first, against the oracle."""

import functools

import numpy as np
import pytest
from kernel_cases import SPARSE_DIRECT, Case, check, conv, operands, run
from kernel_checks import check_threads

from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.geometry_sparse import sparse_layout

sparse = functools.partial(Case, m=0, algorithm=SPARSE_DIRECT, lanes=8)
strided = functools.partial(conv, r=1, padding=(0, 0, 0, 0), stride=2)
ADDED = Epilogue(True, True, "relu")
CASES = [
    sparse(strided(14, 14, c=9, k=7), panel_vectors=7, channel_block=4, rows_at_once=2),
    sparse(strided(28, 28, c=9, k=10), panel_vectors=5, k_block=4, rows_at_once=4, epilogue=ADDED),
    sparse(strided(16, 32, c=9, k=7, n=3), panel_vectors=6, channel_block=5, rows_at_once=2),
    sparse(strided(15, 33, c=6, k=8, groups=2, n=2), panel_vectors=3, rows_at_once=4),
    sparse(strided(7, 40, c=3, k=4, stride=(1, 4), n=2), panel_vectors=0, epilogue=ADDED),
    sparse(strided(9, 90, c=3, k=4, stride=(3, 5)), panel_vectors=2, rows_at_once=3),
    sparse(strided(33, 7, c=3, k=4, stride=(4, 3)), panel_vectors=1, density=1.0),
    sparse(strided(11, 13, c=5, k=5, dilation=3), panel_vectors=2, density=0.0, rows_at_once=2),
    sparse(strided(40, 40, c=5, k=5), lanes=16, panel_vectors=0, registers=32, rows_at_once=2),
    sparse(strided(9, 4, c=5, k=5), lanes=4, panel_vectors=3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_is_the_oracle(case):
    assert sparse_layout(case.plan, case.lanes).is_thinned
    check(case)


def test_the_cases_are_of_every_kind():
    layouts = [sparse_layout(c.plan, c.lanes) for c in CASES]
    assert {x.kind for x in layouts} == {"map", "runs"}
    assert max(x.panels for x in layouts) > 1 and max(x.channel_blocks for x in layouts) > 1


@pytest.mark.parametrize("case", CASES[1:4], ids=str)
def test_nothing_between_the_pixels_is_read(case):
    x, *others = operands(case)
    out = run(case, x, *others)
    between = np.ones(x.shape, bool)
    between[:, :, ::2, ::2] = False
    x[between] = np.nan
    assert np.array_equal(out, run(case, x, *others))


def test_same_bits_with_any_number_of_threads():
    check_threads(CASES[2])
    check_threads(CASES[3])
