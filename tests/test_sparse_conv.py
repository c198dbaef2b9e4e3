"""Sparse direct kernels against the float64 oracle; the tolerance is that of ``kernel_cases``."""

import dataclasses
import functools

import numpy as np
import pytest
from kernel_cases import (
    EPILOGUES,
    PLAIN,
    SPARSE_DIRECT,
    Case,
    check,
    conv,
    expected,
    operands,
    run,
)
from kernel_checks import check_threads

from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.geometry_sparse import register_tile, sparse_layout
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv, kernel_name

NONE, THREE = (0, 0, 0, 0), (3, 3, 3, 3)
sparse = functools.partial(Case, m=0, algorithm=SPARSE_DIRECT, panel_vectors=4, channel_block=2)
pointwise = functools.partial(conv, r=1, padding=NONE)

# Lines of parts of a row, of whole rows, of several rows, shorter than a vector; one pixel.
MAPS = [
    sparse(conv(1, 1)),
    sparse(conv(1, 13), panel_vectors=1),
    sparse(conv(13, 1), rows_at_once=2),
    sparse(conv(7, 7, n=3), lanes=8, panel_vectors=0, rows_at_once=2),
    sparse(conv(7, 7, n=2), lanes=8, panel_vectors=0, rows_at_once=3),
    sparse(conv(9, 14), lanes=8, panel_vectors=0),
    sparse(conv(6, 16, k=5), lanes=8, panel_vectors=3, rows_at_once=4),
    sparse(conv(4, 207), lanes=8, panel_vectors=60),
    sparse(conv(11, 23, n=2), rows_at_once=3),
]
FILTERS = [
    sparse(conv(5, 6, r=2, padding=(1, 0, 0, 1))),
    sparse(conv(9, 8, r=5, padding=(2, 2, 2, 2)), lanes=8),
    sparse(conv(1, 2, r=5, padding=(4, 3, 4, 4))),
    sparse(conv(6, 9, columns=1, padding=(1, 0, 1, 0)), lanes=8),
    sparse(conv(6, 21, r=1, columns=7, padding=(0, 3, 0, 3)), lanes=8, rows_at_once=2),
    sparse(conv(5, 7, padding=NONE)),
    sparse(conv(5, 7, padding=(5, 0, 1, 4)), lanes=8),
]
STEPS = [
    sparse(conv(9, 11, stride=2), rows_at_once=2),
    sparse(conv(12, 12, stride=2, padding=(0, 0, 1, 1)), lanes=8),
    sparse(conv(20, 41, r=7, padding=THREE, stride=2), lanes=8, rows_at_once=3),
    sparse(conv(17, 40, stride=4), lanes=8),
    sparse(conv(16, 70, stride=(1, 3)), panel_vectors=20),
    sparse(conv(9, 12, columns=5, padding=(2, 3, 0, 1), stride=(2, 3), dilation=(2, 1)), lanes=8),
    sparse(conv(9, 30, padding=(2, 2, 2, 2), dilation=2), lanes=8, rows_at_once=2),
    sparse(conv(11, 13, padding=(4, 1, 0, 6), dilation=(1, 4), stride=2)),
    sparse(conv(12, 12, r=2, padding=NONE, stride=2, dilation=2), lanes=8),
]
POINTWISE = [
    sparse(pointwise(5, 6)),
    sparse(pointwise(4, 12), panel_vectors=0),
    sparse(pointwise(4, 12, n=2), channel_block=0, lanes=8),
    sparse(pointwise(1, 1, n=2)),
    sparse(pointwise(3, 3), lanes=8, rows_at_once=2),
    sparse(pointwise(7, 7, n=2, c=9, k=7), lanes=8, k_block=4, rows_at_once=2),
    sparse(pointwise(24, 30, c=6, k=10, groups=2), lanes=8, panel_vectors=11, rows_at_once=4),
    sparse(pointwise(12, 12, stride=2), lanes=8, panel_vectors=1),
    sparse(pointwise(12, 26, stride=(1, 2), n=2), lanes=8, panel_vectors=0),
    sparse(conv(6, 6, r=1, padding=(1, 2, 3, 0))),
]
CHANNELS = [
    sparse(conv(5, 9, c=1, k=1), density=1.0),
    sparse(conv(5, 9, c=9, k=7), k_block=3, rows_at_once=2),
    sparse(conv(5, 9, c=9, k=22), lanes=8, rows_at_once=14, registers=32),
    sparse(conv(5, 8, c=6, k=9, groups=3, n=2), k_block=2, rows_at_once=4),
    sparse(conv(9, 17, c=6, k=6, groups=6), lanes=8, panel_vectors=0, rows_at_once=4),
    sparse(conv(5, 9, c=6, k=12, groups=6, stride=2), rows_at_once=2),
    sparse(conv(14, 14, c=40, k=5), lanes=8, panel_vectors=0, channel_block=0, rows_at_once=2),
    sparse(conv(14, 30, c=40, k=5), lanes=8, panel_vectors=0, channel_block=19, rows_at_once=2),
    sparse(conv(6, 7, c=5, k=9), k_block=4, channel_block=1, rows_at_once=4),
    sparse(pointwise(16, 16, c=90, k=5, n=2), lanes=8, panel_vectors=16, channel_block=40),
]
DENSITIES = [
    sparse(conv(5, 9), density=0.0, rows_at_once=2),
    sparse(pointwise(5, 9), density=0.0),
    sparse(conv(5, 9), density=1.0, rows_at_once=2),
    sparse(conv(5, 9, c=12, k=9), density=0.02, rows_at_once=4),
]
CASES = [*MAPS, *FILTERS, *STEPS, *POINTWISE, *CHANNELS, *DENSITIES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_is_the_oracle(case):
    check(case)


def test_the_cases_are_of_every_kind():
    layouts = [sparse_layout(c.plan, c.lanes) for c in CASES]
    pairs = zip(layouts, CASES, strict=True)
    tiles = [register_tile(layout, c.registers) for layout, c in pairs]
    kinds = [(t.is_buffered, min(t.lines, 2), t.count > 1) for t in tiles]
    assert {(True, 1, False), (True, 2, True), (False, 0, True), (False, 2, True)} <= {*kinds}
    assert {(x.in_place, x.is_merged) for x in layouts} == {(True, True), (False, True), (False, 0)}
    assert {x.slices_outside for x in layouts} == {True, False}
    assert max(x.panels for x in layouts) > 1 and max(x.k_blocks for x in layouts) > 1
    assert {(x.channel_blocks > 1, x.in_place, x.slices_outside) for x in layouts} >= {
        (True, True, True),
        (True, False, True),
        (True, False, False),
        (False, False, False),
    }
    assert any(x.total_rows % x.rows for x in layouts)


# Lines of whole vectors, of others, shorter than one; with a step; in place.
SHAPES = [
    conv(4, 16, c=6, k=5),
    conv(4, 19, c=6, k=5),
    conv(5, 3, c=6, k=5),
    conv(9, 21, c=6, k=5, stride=2),
    pointwise(4, 8, c=24, k=5),
]


@pytest.mark.parametrize("epilogue", EPILOGUES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=["whole", "other", "short", "strided", "in place"])
def test_epilogues(shape, epilogue):
    """Outputs lie on both sides of 0, and of 6 where that matters."""
    case = sparse(shape, density=0.8, rows_at_once=2, epilogue=epilogue)
    plain, _ = expected(dataclasses.replace(case, epilogue=PLAIN), *operands(case))
    assert plain.min() < 0
    assert plain.max() > (8 if epilogue.activation == "relu6" else 0)
    check(case)


@pytest.mark.parametrize(
    "case",
    [
        sparse(conv(7, 7, c=9, stride=2), rows_at_once=2),
        sparse(conv(6, 9, c=9), lanes=8),
        sparse(conv(13, 5, c=9, padding=(2, 1, 0, 2)), lanes=8),
    ],
    ids=str,
)
def test_what_scratch_held_before_does_not_matter(case):
    """A call leaves NaN in the scratch that the next call takes from the pool."""
    x, *others = operands(case)
    run(case, np.full_like(x, np.nan), *others)
    check(case)


def test_not_a_number_stays_in_its_group():
    case = sparse(conv(5, 6, c=6, k=9, groups=3), rows_at_once=4)
    x, *others = operands(case)
    clean = run(case, x, *others)
    x[:, 2:4] = np.nan
    out = run(case, x, *others)
    assert np.isnan(out[:, 3:6]).any()
    assert np.array_equal(out[:, [0, 1, 2, 6, 7, 8]], clean[:, [0, 1, 2, 6, 7, 8]])


# Several panels, blocks of output channels, a batch, a last panel that is moved back.
MANY = sparse(conv(10, 11, n=3, c=9, k=7), panel_vectors=9, k_block=4, rows_at_once=2)


def test_same_bits_with_any_number_of_threads():
    layout = sparse_layout(MANY.plan, MANY.lanes)
    assert (layout.tasks, layout.panels * layout.rows) == (3 * 2 * 4, 12)
    check_threads(MANY)


def test_a_shape_without_a_kernel_is_refused():
    case = sparse(conv(2, 2, padding=NONE))
    with pytest.raises(ShapeError, match="smaller than the filter 3"):
        build_conv(case.plan, PLAIN, (), 4, 16)


def test_the_name_tells_what_the_kernel_does():
    shape = conv(9, 8, c=6, k=4, groups=2, columns=5, stride=(2, 1), dilation=(1, 3), padding=THREE)
    case = sparse(dataclasses.replace(shape, padding=(3, 6, 3, 6)))
    assert kernel_name(case.plan, Epilogue(True, False, "relu")) == (
        "sparse_direct_3x5_c6k4_n1h9w8_s2x1_d1x3_g2_bias_relu"
    )


def test_the_weights_that_are_packed_are_the_nonzeros():
    case = sparse(conv(5, 6, c=8, k=8), density=0.25)
    _, weight, *_ = operands(case)
    packed = pack(weight, case.plan, case.lanes)
    assert np.count_nonzero(packed.arrays[3]) == np.count_nonzero(weight) == len(packed.arrays[3])
