"""Dense direct kernels against the float64 oracle; the tolerance is that of ``kernel_cases``."""

import dataclasses
import functools

import numpy as np
import pytest
from kernel_cases import (
    DIRECT,
    PLAIN,
    SAME,
    Case,
    check,
    conv,
    expected,
    operands,
    run,
)
from kernel_checks import check_in_place, check_reach, check_scratch, check_threads

from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.geometry_direct import direct_layout
from tvm_sparsewino.schedules.build import build_conv, kernel_name

NONE = (0, 0, 0, 0)
direct = functools.partial(
    Case, m=0, density=1.0, algorithm=DIRECT, panel_vectors=4, channel_block=2, rows_at_once=4
)

# Rows of whole vectors (plain) and of others (shifted), maps of one pixel, one row, one column.
MAPS = [
    direct(conv(1, 1)),
    direct(conv(1, 13), panel_vectors=1),
    direct(conv(13, 1)),
    direct(conv(7, 7, n=3), panel_vectors=0),
    direct(conv(6, 16), lanes=8, panel_vectors=3),
    direct(conv(4, 97), panel_vectors=30),
    direct(conv(11, 23, n=2), lanes=8, panel_vectors=9),
]
# More input rows than L1 keeps: the loops are the other way round.
LARGE = [
    direct(conv(14, 14, c=14, k=9), lanes=8, panel_vectors=25, channel_block=12),
    direct(conv(14, 14, c=12, k=9, n=2), panel_vectors=50, channel_block=0),
    direct(conv(13, 32, c=14, k=6), lanes=8, panel_vectors=52, channel_block=12),
]
PADDING = [
    direct(conv(5, 7, padding=NONE)),
    direct(conv(5, 7, padding=(2, 0, 1, 2))),
    direct(conv(5, 7, padding=(0, 2, 2, 0)), lanes=8),
    direct(conv(5, 7, padding=(2, 2, 2, 2))),
    direct(conv(5, 8, padding=(1, 0, 2, 2))),
    direct(conv(3, 30, padding=(2, 2, 0, 2)), lanes=8),
]
FILTERS = [
    direct(conv(5, 6, r=2, padding=(1, 0, 0, 1))),
    direct(conv(9, 8, r=5, padding=(2, 2, 2, 2)), lanes=8),
    direct(conv(1, 2, r=5, padding=(4, 3, 4, 4))),
    direct(conv(8, 9, r=7, padding=(3, 6, 0, 2)), panel_vectors=6),
]
CHANNELS = [
    direct(conv(5, 9, c=1, k=1)),
    direct(conv(5, 9, c=9, k=7), k_block=3, channel_block=4),
    direct(conv(5, 9, c=9, k=7), channel_block=9, rows_at_once=2),
    direct(conv(5, 9, c=9, k=22), channel_block=0, rows_at_once=14, registers=32),
    direct(conv(5, 8, c=6, k=9, groups=3, n=2), k_block=2),
    direct(conv(5, 9, c=4, k=10, groups=2), k_block=4, channel_block=1),
    direct(conv(9, 17, c=6, k=6, groups=6), lanes=8, panel_vectors=0),
    direct(conv(5, 9, c=6, k=12, groups=6), panel_vectors=3),
]
# Stride and dilation of both kinds of rows; filters of one row, one column, neither square.
STEPS = [
    direct(conv(9, 21, dilation=2, padding=(1, 2, 2, 1)), lanes=8),
    direct(conv(9, 23, stride=3, n=2), panel_vectors=2),
    direct(conv(9, 64, stride=5, padding=(1, 2, 2, 1)), lanes=8),
    direct(conv(10, 40, stride=4, r=4), lanes=8),
    direct(conv(9, 22, stride=2, dilation=3, padding=(3, 2, 2, 3))),
    direct(conv(11, 20, stride=(3, 1), dilation=(2, 1), padding=(0, 1, 2, 1))),
    direct(conv(11, 19, stride=(1, 2), dilation=(1, 3)), lanes=8),
    direct(conv(8, 18, r=1, columns=5, padding=(0, 2, 0, 2)), lanes=8),
    direct(conv(8, 15, r=4, columns=1, padding=(2, 0, 1, 0), stride=2)),
    direct(conv(9, 14, r=2, columns=5, padding=(1, 2, 0, 2), stride=2, c=6, groups=2)),
    direct(conv(23, 21, r=7, stride=2, padding=(3, 3, 3, 3)), lanes=8, panel_vectors=6),
    # Padding beyond the filter: rows and columns of nothing but zeros.
    direct(conv(3, 4, padding=(5, 12, 3, 4), stride=2), lanes=8),
]
# One tap: pixels in tiles, straight from the map or after a copy of its rows.
ONE_TAP = [
    direct(conv(1, 1, r=1, padding=NONE)),
    direct(conv(7, 7, r=1, padding=NONE, c=9, k=9, n=2), lanes=8, panel_vectors=0, channel_block=4),
    direct(conv(14, 14, r=1, padding=NONE, c=3), lanes=8, panel_vectors=25, channel_block=0),
    direct(conv(14, 14, r=1, padding=NONE, c=5, k=6), lanes=8, panel_vectors=9, k_block=4),
    direct(conv(12, 16, r=1, padding=NONE, n=2), lanes=8, panel_vectors=8, channel_block=1),
    direct(conv(15, 13, r=1, padding=NONE, stride=2, c=5), lanes=8, panel_vectors=3),
    direct(conv(9, 11, r=1, padding=(1, 2, 0, 3), c=6, k=6, groups=2)),
    direct(conv(9, 11, r=1, padding=(1, 2, 0, 3), stride=(2, 3), dilation=2), lanes=8),
    direct(conv(28, 28, r=1, padding=NONE, c=64), lanes=8, panel_vectors=30, channel_block=48),
]
CASES = [*MAPS, *LARGE, *PADDING, *FILTERS, *CHANNELS, *STEPS, *ONE_TAP]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_is_the_oracle(case):
    check(case)


def test_the_cases_are_of_every_kind():
    layouts = [direct_layout(c.plan, c.lanes) for c in CASES]
    found = {(x.slices_outside, x.channel_blocks > 1, x.kind) for x in layouts}
    assert found >= {
        *((False, True, kind) for kind in ("plain", "shifted", "tiled")),
        *((True, True, kind) for kind in ("plain", "shifted", "tiled")),
        (False, False, "shifted"),
        (True, False, "tiled"),
    }
    assert {x.from_map for x in layouts if x.kind == "tiled"} == {True, False}


EPILOGUES = [
    (16, Epilogue(bias=True)),
    (19, Epilogue(residual=True)),
    (16, Epilogue(True, True, "relu")),
    (19, Epilogue(True, False, "relu6")),
    (16, Epilogue(True, True, "leaky_relu", 0.125)),
    (19, Epilogue(False, True, "prelu")),
]


@pytest.mark.parametrize(("width", "epilogue"), EPILOGUES, ids=str)
def test_epilogues(epilogue, width):
    """Once after several blocks of channels; outputs on both sides of 0 and of 6."""
    case = direct(conv(4, width, c=6, k=5), epilogue=epilogue)
    plain, _ = expected(dataclasses.replace(case, epilogue=PLAIN), *operands(case))
    assert plain.min() < -6 and plain.max() > 12
    check(case)


# Several panels, blocks of both kinds of channels, a batch, a last panel that is not full.
MANY = direct(conv(9, 11, n=3, c=9, k=7), panel_vectors=6, k_block=4, channel_block=4)


def test_same_bits_with_any_number_of_threads():
    assert direct_layout(MANY.plan, MANY.lanes).tasks == 3 * 2 * 5
    check_threads(MANY)


def test_nothing_is_left_in_the_scratch():
    check_scratch(MANY)


def test_a_bad_pixel_stays_where_it_is_read():
    check_reach(MANY, (1, 2, 4, 10), np.s_[1, :, 3:6, 9:11])


def test_a_bad_pixel_stays_in_its_group():
    check_reach(direct(conv(5, 9, c=6, k=6, groups=3)), (0, 0), np.s_[:, :2])


def test_an_activation_keeps_nan():
    case = direct(conv(5, 9), epilogue=Epilogue(bias=True, activation="relu6"))
    x, *rest = operands(case)
    assert np.isnan(run(case, np.full_like(x, np.nan), *rest)).all()


def test_a_shape_without_a_kernel_is_refused():
    case = direct(conv(5, 5, padding=(-1, *SAME[1:])))
    with pytest.raises(ShapeError, match="must be four numbers >= 0"):
        build_conv(case.plan, PLAIN, (((1,), "float32"),), 8, 16)


def test_kernel_names_tell_what_they_compute():
    assert kernel_name(direct(conv(5, 9)).plan, PLAIN) == "dense_direct_3x3_c3k4_n1h5w9"


@pytest.mark.parametrize(
    "case",
    [
        direct(conv(7, 7, k=7), lanes=8, panel_vectors=3),
        direct(conv(6, 16, n=2), lanes=8, panel_vectors=3),  # vectors that do not cross rows
        direct(conv(14, 14, r=1, padding=NONE, c=9, k=7), lanes=8, panel_vectors=9),
        direct(conv(13, 11, stride=2, k=5), lanes=8, panel_vectors=2, k_block=3, channel_block=0),
        direct(conv(5, 5, c=6, k=6, groups=3), panel_vectors=2, rows_at_once=2),
    ],
    ids=str,
)
def test_an_output_over_what_is_added(case):
    check_in_place(dataclasses.replace(case, epilogue=Epilogue(True, True, "relu")))
