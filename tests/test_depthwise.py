"""Depthwise kernels against the float64 oracle; the tolerance is that of ``kernel_cases``."""

import dataclasses

import numpy as np
import pytest
from kernel_cases import DIRECT, EPILOGUES, Case, check, conv
from kernel_checks import check_reach, check_scratch, check_threads

from tvm_sparsewino.geometry_depthwise import depthwise_layout, is_depthwise
from tvm_sparsewino.schedules.depthwise import UNROLLED_TAPS

NONE = (0, 0, 0, 0)


def depthwise(h, w, c=5, multiple=1, sizes=(0, 0, 2), **options):
    """A case; ``sizes`` are the vectors of a panel, the outputs of a task and the planes."""
    shape = {name: options.pop(name) for name in SHAPE if name in options}
    shape = conv(h, w, c=c, k=c * multiple, groups=c, **shape)
    vectors, outputs, planes = sizes
    blocking = {"panel_vectors": vectors, "k_block": outputs, "channel_block": planes}
    return Case(shape, 0, 1.0, DIRECT, **blocking, **options)


SHAPE = ("r", "columns", "padding", "n", "stride", "dilation")

CASES = [
    depthwise(7, 7, lanes=8, n=2),
    depthwise(14, 14, lanes=8, sizes=(0, 3, 2)),
    depthwise(9, 16, sizes=(8, 2, 1), n=2),
    depthwise(1, 1, c=1),
    depthwise(3, 30, sizes=(1, 0, 1), padding=(5, 4, 3, 9), lanes=8),
    # Strides and dilations, last panels that are not full.
    depthwise(14, 15, stride=2, lanes=8, sizes=(4, 3, 2)),
    depthwise(16, 33, stride=2, padding=(0, 0, 1, 1), lanes=8, sizes=(6, 0, 3)),
    depthwise(11, 19, stride=(3, 1), dilation=(2, 3), lanes=8),
    depthwise(12, 22, stride=(2, 3), dilation=2, padding=(2, 3, 1, 0)),
    # More output channels, other filters, loops over large ones.
    depthwise(9, 11, c=3, multiple=2, sizes=(0, 4, 0)),
    depthwise(6, 9, c=4, multiple=3, stride=2, lanes=8, sizes=(0, 1, 1)),
    depthwise(10, 18, r=5, padding=(2, 2, 2, 2), lanes=8),
    depthwise(12, 13, r=1, columns=7, padding=(0, 3, 0, 3), stride=2),
    depthwise(8, 12, r=1, padding=NONE, lanes=8),
    depthwise(15, 17, r=7, padding=(3, 3, 3, 3), stride=2, dilation=(1, 2), lanes=8),
    depthwise(13, 11, c=3, r=9, columns=3, padding=(4, 1, 4, 1), registers=32),
    # One channel is depthwise as well.
    depthwise(8, 20, c=1, multiple=3, lanes=8),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_is_the_oracle(case):
    check(case)


def test_the_cases_are_of_every_kind():
    assert all(is_depthwise(case.shape) for case in CASES)
    layouts = [depthwise_layout(case.plan, case.lanes) for case in CASES]
    assert {x.shape.taps > UNROLLED_TAPS for x in layouts} == {True, False}
    assert {x.panels > 1 for x in layouts} == {True, False}
    assert {x.shape.oh % x.rows > 0 for x in layouts} == {True, False}
    assert any(x.shape.c % x.channels and x.channels % x.planes for x in layouts)


@pytest.mark.parametrize("epilogue", EPILOGUES[::2], ids=str)
def test_epilogues(epilogue):
    """Whole vectors and a tail of several parts."""
    check(depthwise(5, 15, c=3, lanes=8, epilogue=epilogue))


MANY = depthwise(9, 11, c=7, n=2, sizes=(6, 3, 2))


def test_same_bits_with_any_number_of_threads():
    assert depthwise_layout(MANY.plan, MANY.lanes).tasks == 2 * 3 * 5
    check_threads(MANY)


def test_nothing_is_left_in_the_scratch():
    """Padding is written once for all channels of a task: it must stay what it is."""
    check_scratch(MANY)


def test_a_bad_pixel_stays_where_it_is_read():
    check_reach(MANY, (1, 2, 4, 10), np.s_[1, 2, 3:6, 9:11])


def test_blocks_of_many_outputs_run_in_the_direct_kernel():
    """From four outputs per channel on loads are shared between them."""
    case = depthwise(7, 9, c=3, multiple=4)
    assert not is_depthwise(case.shape)
    check(dataclasses.replace(case, rows_at_once=4))
