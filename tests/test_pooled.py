"""Winograd kernels that pool their outputs, against the float64 oracle.

The tolerance is that of ``kernel_cases``: pooling does not add to the largest error in a window but
for the rounding of a sum of four.
"""

import dataclasses
import re

import numpy as np
import pytest
from kernel_cases import DENSE, DIRECT, SPARSE, Case, arguments, compiled, conv, expected, operands

from tvm_sparsewino import _compat
from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.geometry_pooling import output_map, pool_refusal
from tvm_sparsewino.schedules.build import build_conv, kernel_name

MAX, AVERAGE = Epilogue(pool="max"), Epilogue(pool="average")
FOUR = 2.0**-22  # relative error of a mean of four

# Even and odd maps, tails of one column, several images in a panel, rows cut into panels.
CASES = [
    Case(conv(2, 2), m=2),
    Case(conv(2, 3), m=4),
    Case(conv(3, 2, n=3), m=6, panel_vectors=3),
    Case(conv(4, 4, n=5), m=4, panel_vectors=3),
    Case(conv(7, 13), m=2, panel_vectors=1, lanes=8),
    Case(conv(9, 11, n=2), m=4, panel_vectors=3, lanes=8),
    Case(conv(5, 37), m=4, panel_vectors=1),
    Case(conv(7, 33), m=2, panel_vectors=1, lanes=8),
    Case(conv(6, 65, padding=(0, 2, 2, 1)), m=4, panel_vectors=1, lanes=8),
    Case(conv(8, 49, padding=(2, 2, 2, 2)), m=6, panel_vectors=1, lanes=8),
    Case(conv(9, 56), m=4, panel_vectors=5, lanes=8),
    Case(conv(12, 12, n=2), m=2, panel_vectors=4, lanes=8),
    Case(conv(5, 30, n=2), m=6, panel_vectors=3, lanes=8),
    # Panels that cut rows, whose last tile is one column.
    Case(conv(23, 25, n=2), m=4, panel_vectors=1, lanes=8),
    Case(conv(8, 9, r=7, padding=(3, 6, 0, 2)), m=2, panel_vectors=1),
    Case(conv(7, 9, r=5, padding=(2, 2, 2, 2)), m=4, panel_vectors=1),
    Case(conv(5, 6, r=1, padding=(0, 0, 0, 0)), m=2),
    Case(conv(6, 9, c=9, k=7), density=0.0, k_block=4),
    Case(conv(6, 9, c=9, k=7), density=1.0, rows_at_once=3),
    Case(conv(6, 9, c=6, k=9, groups=3, n=2), k_block=4, rows_at_once=2),
    Case(conv(9, 23, c=9, k=7, n=2), 2, 1.0, DENSE, 8, rows_at_once=4, k_block=3),
    Case(conv(9, 11, c=5, k=7), 4, 0.3, DENSE, 3, rows_at_once=2, channel_block=0, lanes=8),
    Case(conv(9, 11, c=8, k=8), 2, 0.5, structure="rows2", lanes=8),
    Case(conv(9, 11, c=8, k=8), 4, 0.5, k_block=4, split_k=True),
    Case(conv(23, 19, c=8, k=12), 4, panel_vectors=1, k_block=8, split_k=True, sharers=2, lanes=8),
    Case(conv(9, 11, c=8, k=8), 2, 0.5, winograd_relu=True),
]


def windows(y):
    """[N, K, H, W] -> the four numbers of every whole window, on a new last axis."""
    h, w = y.shape[2] // 2 * 2, y.shape[3] // 2 * 2
    parts = [y[:, :, i:h:2, j:w:2] for i in range(2) for j in range(2)]
    return np.stack(parts, -1)


def check(case):
    x, u, bias, slope, residual = operands(case)
    y, bound = expected(case, x, u, bias, slope, residual)
    bound = windows(bound).max(-1)
    if case.epilogue.pool == "max":
        want = windows(y).max(-1)
    else:
        want, size = windows(y).mean(-1), abs(windows(y)).max(-1)
        bound = bound + FOUR * size
    packed, arrays = arguments(case, x, u, bias, slope, residual)
    arrays[-1] = np.full(want.shape, np.nan, np.float32)
    kernel = compiled(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    tensors = [_compat.runtime_tensor(a) for a in arrays]
    kernel(*tensors)
    out = tensors[-1].numpy()
    assert np.isfinite(out).all(), "outputs not written"
    error = abs(out - want)
    assert (error <= bound).all(), f"error {error.max()} where at most {bound.max()} can be"


@pytest.mark.parametrize("epilogue", [MAX, AVERAGE], ids=["max", "average"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_pooled_kernel_is_the_oracle(case, epilogue):
    check(dataclasses.replace(case, epilogue=epilogue))


@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "leaky_relu", "prelu"])
def test_the_activation_comes_before_the_pool(activation, pool):
    """On outputs on both sides of 0 and of 6; slopes of both signs."""
    epilogue = Epilogue(True, False, activation, 0.125 * (activation == "leaky_relu"), pool)
    check(Case(conv(6, 19, c=12, k=3), density=0.9, m=4, epilogue=epilogue))


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_the_bias_of_a_filter_without_a_column_of_ones(activation):
    epilogue = Epilogue(True, False, activation, pool="max")
    check(Case(conv(5, 6, r=1, padding=(0, 0, 0, 0)), m=2, epilogue=epilogue))


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case(conv(6, 6), m=3), "tiles of 3 x 3 outputs cut windows apart"),
        (Case(conv(1, 6), m=2), "a 1x6 map has no window"),
        (Case(conv(6, 6), m=0, algorithm=DIRECT), "only .* sparse direct kernels pool, not 'dense"),
        (Case(conv(6, 6), epilogue=Epilogue(residual=True)), "a residual is added before it"),
    ],
)
def test_what_no_kernel_pools_is_refused(case, reason):
    epilogue = dataclasses.replace(case.epilogue, pool="max")
    assert re.search(reason, pool_refusal(case.plan, epilogue))
    with pytest.raises(ConfigError, match=reason):
        build_conv(case.plan, epilogue, (((1,), "int32"),) * 4, 8, 16)


def test_windows_that_jut_out_are_dropped():
    written = output_map(conv(7, 9), 4, "max")
    assert (written.step, written.height, written.width) == (2, 3, 4)
    assert output_map(conv(7, 9), 4, "none").height == 7


def test_the_name_tells_the_pool():
    case = Case(conv(7, 9), m=4, algorithm=SPARSE)
    assert kernel_name(case.plan, MAX) == "sparse_winograd_f4x3_c3k4_n1h7w9_max_pool"
