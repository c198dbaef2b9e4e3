"""Winograd kernels against the float64 oracle; the tolerance is that of ``kernel_cases``."""

import dataclasses

import numpy as np
import pytest
from kernel_cases import (
    DENSE,
    EPILOGUES,
    HOST,
    PLAIN,
    SAME,
    SPARSE,
    Case,
    check,
    conv,
    expected,
    operands,
    run,
)
from kernel_checks import check_reach, check_scratch, check_threads

from tvm_sparsewino import reference
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ConfigError, ShapeError
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.schedules.build import build_conv, kernel_name

# Output maps of 1, tile - 1, tile, tile + 1 and primes, both square and long.
MAPS = [
    Case(conv(1, 1), m=2),
    Case(conv(1, 13), m=2, panel_vectors=1),
    Case(conv(13, 1), m=2, panel_vectors=3),
    Case(conv(3, 5), m=2, lanes=8),
    Case(conv(17, 2, n=2), m=2, panel_vectors=3),
    Case(conv(7, 31), m=3, panel_vectors=3, lanes=8),
    Case(conv(4, 4, n=5), m=4, panel_vectors=3),
    Case(conv(3, 3, n=3), m=4, panel_vectors=1),
    Case(conv(5, 37), m=4, panel_vectors=1),
    Case(conv(11, 70), m=4, panel_vectors=1, lanes=8),
    Case(conv(9, 11, n=2), m=4, panel_vectors=3, lanes=8),
    Case(conv(7, 13), m=6, panel_vectors=1),
    Case(conv(6, 19), m=6, panel_vectors=3, lanes=8),
    # Vectors that run over the ends of 14, 7, 6, 5 and 9 tiles in a row, and over images.
    Case(conv(9, 56), m=4, panel_vectors=5, lanes=8),
    Case(conv(9, 28, n=3), m=4, panel_vectors=4, lanes=8),
    Case(conv(6, 22), m=4, panel_vectors=5, lanes=8),
    Case(conv(12, 12, n=2), m=2, panel_vectors=4, lanes=8),
    Case(conv(5, 13, n=3), m=2, panel_vectors=4, lanes=8),
    Case(conv(5, 30, n=2), m=6, panel_vectors=3, lanes=8),
    Case(conv(5, 18), m=2, panel_vectors=3, lanes=4),
    # Rows cut into panels: the last has one tile, or one output, and vectors before it overlap.
    Case(conv(7, 33), m=2, panel_vectors=1, lanes=8),
    Case(conv(6, 65, padding=(0, 2, 2, 1)), m=4, panel_vectors=1, lanes=8),
    Case(conv(2, 51, padding=(1, 0, 1, 0)), m=2, panel_vectors=1, lanes=8),
    Case(conv(8, 49, padding=(2, 2, 2, 2)), m=6, panel_vectors=1, lanes=8),
]
# Panels that begin and end inside of rows of 14, 10, 9, 6 and 5 tiles, and inside of images.
CUT_ROWS = [
    Case(conv(56, 56, c=5, k=6), m=4, panel_vectors=5, rows_at_once=2, lanes=8),
    Case(conv(55, 53, n=2), 4, 0.3, panel_vectors=5, epilogue=Epilogue(True, True), lanes=8),
    Case(conv(17, 56, padding=(0, 2, 1, 2)), m=6, panel_vectors=2, lanes=8),
    Case(conv(23, 19, n=3), m=2, panel_vectors=2, lanes=8, winograd_relu=True),
    Case(conv(23, 29, n=3), m=6, panel_vectors=1, lanes=8),
    Case(conv(9, 19, n=3), m=4, panel_vectors=2),
    Case(conv(9, 9, n=3), m=1, panel_vectors=2, lanes=8),
    Case(conv(9, 11, n=3, r=5, padding=(2, 4, 2, 0)), m=2, panel_vectors=2),
    Case(conv(23, 19, c=4, k=6), 4, 1.0, DENSE, 1, rows_at_once=4, lanes=8),
    Case(conv(23, 19, c=8, k=8), 4, panel_vectors=1, k_block=4, split_k=True, lanes=8),
]
PADDING = [
    Case(conv(5, 7, padding=(0, 0, 0, 0)), m=2),
    Case(conv(5, 23, padding=(2, 0, 1, 2)), m=2, panel_vectors=1),
    Case(conv(6, 9, padding=(0, 2, 2, 0)), m=4),
    Case(conv(4, 3, padding=(1, 2, 0, 1)), m=4, lanes=8),
    Case(conv(1, 1, padding=(2, 2, 2, 2)), m=2),
    Case(conv(1, 2, r=5, padding=(4, 3, 4, 4)), m=2),
    Case(conv(6, 7, r=5, padding=(0, 4, 3, 1)), m=2),
]
FILTERS = [
    Case(conv(5, 6, r=1, padding=(0, 0, 0, 0)), m=1),
    Case(conv(5, 6, r=1, padding=(0, 0, 0, 0)), m=4, lanes=8),
    # No column of A^T is all ones: nowhere to add the bias but to every output.
    Case(conv(5, 6, r=1, padding=(0, 0, 0, 0)), m=2, epilogue=Epilogue(bias=True)),
    Case(conv(5, 6, r=2, padding=(1, 0, 0, 1)), m=3),
    Case(conv(6, 9, r=3), m=1),
    Case(conv(9, 8, r=5, padding=(2, 2, 2, 2)), m=2, lanes=8),
    Case(conv(7, 9, r=5, padding=(2, 2, 2, 2)), m=4, panel_vectors=1),
    Case(conv(8, 9, r=7, padding=(3, 6, 0, 2)), m=2, panel_vectors=1),
]
# Channels, groups, blocks of output channels and of scratch, rows together, densities 0 and 1.
CHANNELS = [
    Case(conv(5, 9, c=1, k=1), rows_at_once=2),
    Case(conv(5, 9, c=9, k=7), k_block=3, rows_at_once=2),
    Case(conv(5, 9, c=9, k=7), k_block=1, channel_block=1, rows_at_once=3),
    Case(conv(5, 9, c=9, k=7), k_block=5, channel_block=0, lanes=8),
    Case(conv(5, 9, c=9, k=7), density=0.0, rows_at_once=2),
    Case(conv(5, 9, c=9, k=7), density=0.0, k_block=4, epilogue=Epilogue(bias=True)),
    Case(conv(5, 9, c=9, k=7), density=1.0, rows_at_once=3),
    Case(conv(5, 9, c=17, k=5), density=0.03, rows_at_once=3, channel_block=4),
    Case(conv(5, 9, c=6, k=9, groups=3, n=2), k_block=4, rows_at_once=2),
    Case(conv(5, 9, c=6, k=6, groups=6), rows_at_once=3, channel_block=4),
    Case(conv(5, 9, c=4, k=10, groups=2), k_block=7, channel_block=1, lanes=8),
]
DENSES = [
    Case(conv(1, 1), 2, 1.0, DENSE, rows_at_once=4),
    Case(conv(9, 23, c=9, k=7, n=2), 2, 1.0, DENSE, 8, rows_at_once=4, k_block=3),
    Case(conv(9, 11, c=5, k=7), 4, 0.3, DENSE, 3, rows_at_once=2, channel_block=0, lanes=8),
    Case(conv(9, 11, c=6, k=9, groups=3), 2, 0.0, DENSE, 3, rows_at_once=2, k_block=4),
    Case(conv(5, 37, c=4, k=10, groups=2), 2, 1.0, DENSE, 1, 7, 1, 8, registers=32),
    Case(conv(7, 6, c=3, k=3, r=5, padding=(2, 4, 0, 1)), 2, 1.0, DENSE, 2, rows_at_once=3),
]
# Behind a ReLU of the transformed inputs.
RELUS = [
    Case(conv(5, 9, c=9, k=7), rows_at_once=2, winograd_relu=True),
    Case(conv(9, 23, c=6, k=9, groups=3, n=2), 4, 0.4, lanes=8, winograd_relu=True),
    Case(conv(7, 6, c=3, k=3, r=5, padding=(2, 4, 0, 1)), 2, 0.5, winograd_relu=True),
    Case(conv(9, 11, c=5, k=7), 4, 1.0, DENSE, 3, rows_at_once=2, lanes=8, winograd_relu=True),
    Case(conv(9, 11, c=8, k=8), 2, 0.5, structure="rows2", lanes=8, winograd_relu=True),
    Case(conv(9, 11, c=8, k=8), 2, 0.5, k_block=4, split_k=True, winograd_relu=True),
]
WIDEST = [
    Case(conv(9, 11, n=2), 2, 0.4, SPARSE, 2, lanes=16, rows_at_once=2, registers=32),
    Case(conv(5, 67), 4, 0.4, SPARSE, 1, lanes=16, registers=32),
    Case(conv(9, 11, k=9), 2, 1.0, DENSE, 2, lanes=16, rows_at_once=8, registers=32),
]
# 8 lanes and as many registers as AVX-512 has; other CPUs have fewer, and put some aside.
NARROW = [
    Case(conv(14, 75, c=5, k=9), 4, panel_vectors=9, rows_at_once=2, lanes=8, registers=32),
    Case(conv(14, 30, c=5, k=9, n=2), 6, panel_vectors=7, rows_at_once=4, lanes=8, registers=32),
    Case(
        conv(9, 40, c=5, k=8),
        panel_vectors=7,
        rows_at_once=4,
        structure="rows4",
        lanes=8,
        registers=32,
    ),
    Case(
        conv(9, 67, c=4, k=9),
        4,
        1.0,
        DENSE,
        panel_vectors=3,
        rows_at_once=8,
        lanes=8,
        registers=32,
    ),
]
needs_avx512 = pytest.mark.skipif(HOST.lanes < 16, reason="the host has no 16-lane vectors")


@pytest.mark.parametrize(
    "case",
    [*MAPS, *CUT_ROWS, *PADDING, *FILTERS, *CHANNELS, *DENSES, *RELUS, *NARROW]
    + [pytest.param(case, marks=needs_avx512) for case in WIDEST],
    ids=str,
)
def test_kernel_is_the_oracle(case):
    check(case)


def test_panels_of_these_cases_cut_rows():
    for case in CUT_ROWS:
        panels = kernel_layout(case.plan, case.lanes).panels
        assert panels.cuts_rows and panels.count > 1


@pytest.mark.parametrize("epilogue", EPILOGUES, ids=str)
def test_epilogues(epilogue):
    """On a map with whole vectors and a tail, and outputs on both sides of 0 and of 6."""
    case = Case(conv(4, 19, c=12, k=3), epilogue=epilogue, density=0.9)
    values = operands(case)
    plain, _ = expected(dataclasses.replace(case, epilogue=PLAIN), *values)
    assert plain.min() < -6 and plain.max() > 12
    check(case)


def test_spatial_weights_reach_the_stated_accuracy():
    """The whole way from a 3x3 filter: max error / max |output| below 3 times the estimate."""
    case = Case(conv(12, 12, c=64, k=2), m=4, density=1.0)
    x, _, *rest = operands(case)
    w = np.random.default_rng(1).standard_normal((2, 64, 3, 3)).astype(np.float32)
    algorithm = cook_toom(4, 3)
    u = reference.winograd_weight(w, algorithm).astype(np.float32)
    exact = reference.conv2d(x, w, padding=SAME)
    error = abs(run(case, x, u, *rest) - exact).max() / abs(exact).max()
    assert error < 3 * algorithm.error_estimate(64)


def test_sparse_and_dense_agree():
    """Same products, summed in the same order of channels: within twice the bound of one."""
    sparse = Case(conv(5, 9, c=9, k=7), k_block=3, rows_at_once=2)
    dense = dataclasses.replace(sparse, algorithm=DENSE)
    values = operands(sparse)
    _, bound = expected(sparse, *values)
    assert (abs(run(sparse, *values) - run(dense, *values)) <= 2 * bound).all()


# Panels that are cut in the middle of a batch and a last one that is not full.
MANY_PANELS = Case(conv(9, 11, n=3, c=9, k=7), m=2, panel_vectors=3, k_block=3, rows_at_once=2)
CUT_PANELS = dataclasses.replace(MANY_PANELS, panel_vectors=2)


@pytest.mark.parametrize("algorithm", [SPARSE, DENSE])
@pytest.mark.parametrize("case", [MANY_PANELS, CUT_PANELS], ids=str)
def test_same_bits_from_run_to_run_and_with_any_number_of_threads(algorithm, case):
    case = dataclasses.replace(case, algorithm=algorithm)
    assert kernel_layout(case.plan, case.lanes).panels.count > 3
    check_threads(case)


@pytest.mark.parametrize("algorithm", [SPARSE, DENSE])
def test_nothing_is_left_in_the_scratch(algorithm):
    check_scratch(dataclasses.replace(MANY_PANELS, algorithm=algorithm), everywhere=False)


@pytest.mark.parametrize("pixel", [(0, 0), (4, 5), (8, 10), (0, 10), (5, 0)])
@pytest.mark.parametrize("algorithm", [SPARSE, DENSE])
def test_a_bad_pixel_stays_in_its_tiles(algorithm, pixel):
    """NaN in one pixel of image 1: outputs change only in tiles that read it, elsewhere no bit."""
    case = dataclasses.replace(MANY_PANELS, algorithm=algorithm)
    s, m, alpha = case.shape, case.m, case.m + 2
    x, *rest = operands(case)
    clean = run(case, x, *rest)
    x[1, 2, pixel[0], pixel[1]] = np.nan
    out = run(case, x, *rest)
    reads = np.zeros((s.n, 1, s.oh, s.ow), bool)
    for y in range(0, s.oh, m):
        for z in range(0, s.ow, m):
            inside = (0 <= pixel[0] - (y - 1) < alpha) and (0 <= pixel[1] - (z - 1) < alpha)
            reads[1, 0, y : y + m, z : z + m] = inside
    reads = np.broadcast_to(reads, out.shape)
    np.testing.assert_array_equal(out[~reads], clean[~reads])
    assert np.isnan(out[1, 0][reads[1, 0]]).any()


def test_a_bad_pixel_stays_in_its_group():
    """Rows of two groups share a slice: padding steps must not read the other group's inputs."""
    case = Case(conv(5, 9, c=6, k=6, groups=3), rows_at_once=3, density=0.5)
    check_reach(case, (0, 0), np.s_[:, :2], everywhere=False)


def test_a_plan_without_a_kernel_is_refused():
    plan = LayerPlan("layer", conv(5, 5), 1.0, "left")
    with pytest.raises(ConfigError, match="no kernel for algorithm 'left'"):
        build_conv(plan, PLAIN, (), 8, 16)


def test_a_shape_without_a_kernel_is_refused():
    case = Case(conv(5, 5, padding=(3, 1, 1, 1)))
    with pytest.raises(ShapeError, match="is not less than its filter, 3"):
        build_conv(case.plan, PLAIN, (((1,), "int32"),) * 4, 8, 16)


def test_kernel_names_tell_what_they_compute():
    shape = ConvShape(2, 6, 13, 9, 4, 3, SAME, 2)
    plan = LayerPlan("c", shape, 0.1, SPARSE, 4)
    assert kernel_name(plan, PLAIN) == "sparse_winograd_f4x3_c6k4_n2h13w9_g2"
    full = kernel_name(plan, Epilogue(True, True, "relu6"))
    assert full == "sparse_winograd_f4x3_c6k4_n2h13w9_g2_bias_add_relu6"


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu", "prelu"])
def test_an_activation_keeps_nan(activation):
    s = ConvShape(1, 2, 6, 6, 2, 3, (1, 1, 1, 1))
    case = Case(s, 4, 1.0, epilogue=Epilogue(bias=True, activation=activation, slope=0.1))
    x, *rest = operands(case)
    assert np.isnan(run(case, np.full_like(x, np.nan), *rest)).all()
