"""Sparse direct kernels that pool their outputs, against the float64 oracle and without the pool.

A maximum adds nothing to the largest error in a window. The same bits as a kernel that does not
pool, followed by a maximum that is exact.
"""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from kernel_cases import (
    SPARSE_DIRECT,
    Case,
    arguments,
    compiled,
    conv,
    expected,
    in_new_thread,
    operands,
    run,
)

from tvm_sparsewino import _compat
from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.geometry_pooling import pool_refusal
from tvm_sparsewino.geometry_sparse import register_tile, sparse_layout
from tvm_sparsewino.pool_window import HALVING, Window
from tvm_sparsewino.schedules.build import build_conv, kernel_name

NONE, THREE = (0, 0, 0, 0), (3, 3, 3, 3)
RESNET = Window(3, 3, 2, 2, 1, 1, 1, 1)
ALEXNET = Window(3, 3, 2, 2)
sparse = functools.partial(Case, m=0, algorithm=SPARSE_DIRECT, panel_vectors=4, channel_block=2)


def pooled(case, window, **epilogue):
    return dataclasses.replace(case, epilogue=Epilogue(pool="max", window=window, **epilogue))


# Panels of two rows and of more, one and many, a last one that is not whole; rows kept and none;
# windows that reach over each border, and rows that no window reads; lines of all kinds.
CASES = [
    pooled(sparse(conv(20, 41, r=7, padding=THREE, stride=2), lanes=8), RESNET),
    pooled(sparse(conv(33, 32, r=7, padding=THREE, stride=2), panel_vectors=9), RESNET),
    pooled(sparse(conv(32, 33, r=7, padding=THREE, stride=2, n=2), panel_vectors=1), RESNET),
    pooled(sparse(conv(35, 47, r=11, padding=(2, 2, 2, 2), stride=4), lanes=8), ALEXNET),
    pooled(sparse(conv(15, 15, r=5, padding=(2, 2, 2, 2), n=2), rows_at_once=2), ALEXNET),
    pooled(sparse(conv(13, 13, c=9, k=7), rows_at_once=3, k_block=4, channel_block=4), ALEXNET),
    pooled(sparse(conv(14, 14), lanes=8, panel_vectors=0), Window(3, 3, 2, 2, 0, 0, 1, 1)),
    pooled(sparse(conv(15, 17, padding=NONE, stride=2)), Window(3, 3, 2, 2, 0, 0, 1, 1)),
    pooled(sparse(conv(13, 12, c=6, k=9, groups=3), k_block=2, rows_at_once=4), HALVING),
    pooled(sparse(conv(8, 30), lanes=8, rows_at_once=4), HALVING),
    pooled(sparse(conv(9, 11), panel_vectors=2), Window(3, 2, 1, 1, 1, 0, 1, 1)),
    pooled(sparse(conv(9, 9, n=2), panel_vectors=3), Window(5, 5, 1, 1, 2, 2, 2, 2)),
    pooled(sparse(conv(17, 12), panel_vectors=3), Window(5, 3, 4, 2, 4, 2, 4, 1)),
    pooled(sparse(conv(16, 9)), Window(1, 2, 3, 1)),
    pooled(sparse(conv(9, 7), lanes=8), Window(2, 2, 1, 1)),
    pooled(sparse(conv(16, 13)), Window(2, 3, 5, 2, 1, 0, 0, 0)),
    pooled(sparse(conv(3, 16)), Window(3, 3, 2, 2, 1, 1, 1, 1)),
    pooled(sparse(conv(1, 16)), Window(3, 3, 2, 2, 1, 1, 1, 1)),
    pooled(sparse(conv(6, 9, r=1, padding=(1, 2, 3, 0))), RESNET),
    pooled(sparse(conv(9, 12, r=2, padding=(1, 0, 0, 1), dilation=2)), RESNET),
    pooled(sparse(conv(9, 14), density=0.0, rows_at_once=2), RESNET),
    pooled(sparse(conv(9, 14), density=1.0, lanes=8), RESNET),
]


def maxima(y, window):
    """Windows of float64 [N, K, H, W]; torch rounds sizes as ``window`` was made, or is cropped."""
    top, left, bottom, right = window.padding
    size = [(top, bottom), (left, right)]
    padded = np.pad(y, [(0, 0), (0, 0), *size], constant_values=-np.inf)
    steps = (window.rows, window.columns), (window.down, window.across)
    return torch.nn.functional.max_pool2d(torch.from_numpy(padded), *steps).numpy()


def run_pooled(case, values):
    packed, arrays = arguments(case, *values)
    shape = case.shape
    size = case.epilogue.window.pooled(shape.oh, shape.ow)
    arrays[-1] = np.full((shape.n, shape.k, *size), np.nan, np.float32)
    kernel = compiled(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    tensors = [_compat.runtime_tensor(a) for a in arrays]
    kernel(*tensors)
    return tensors[-1].numpy()


def apart(case, values):
    """What the kernel without the pool makes, pooled exactly."""
    alone = dataclasses.replace(case.epilogue, pool="none", window=HALVING)
    whole = run(dataclasses.replace(case, epilogue=alone), *values)
    return maxima(whole, case.epilogue.window)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c}-{'x'.join(map(str, c.epilogue.window))}"
)
def test_pooled_kernel_is_the_oracle(case):
    values = operands(case)
    y, bound = expected(case, *values)
    window = case.epilogue.window
    out = run_pooled(case, values)
    assert np.isfinite(out).all(), "outputs not written"
    error = abs(out - maxima(y, window))
    assert (error <= maxima(bound, window)).all(), f"error {error.max()}"
    np.testing.assert_array_equal(out, apart(case, values))


def test_the_cases_are_of_every_kind():
    layouts = [sparse_layout(c.plan, c.lanes) for c in CASES]
    pairs = list(zip(layouts, CASES, strict=True))
    tiles = [register_tile(layout, c.registers) for layout, c in pairs]
    assert {t.is_buffered for t in tiles} == {True, False}
    assert {(t.lines > 1, t.count > 1) for t in tiles} >= {(True, True), (False, True)}
    assert {layout.is_merged for layout in layouts} == {True, False}
    rows = [layout.pooled for layout in layouts]
    assert {r.kept for r in rows} >= {0, 1, 2, 4} and {r.lag for r in rows} >= {0, 1, 2}
    assert min(r.panels for r in rows) == 1 < max(r.panels for r in rows)
    assert any(r.kept > r.rows for r in rows)  # rows that move overlap
    assert {bool(r.beyond) for r in rows} == {True, False}
    assert {r.needed < r.height for r in rows} == {True, False}
    assert any(r.needed % r.rows for r in rows)
    assert max(layout.k_blocks for layout in layouts) > 1
    assert max(layout.channel_blocks for layout in layouts) > 1
    assert any(layout.per_group % layout.k_block for layout in layouts)


@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "leaky_relu", "prelu"])
def test_the_activation_comes_before_the_pool(activation):
    """On outputs on both sides of 0 and of 6; slopes of both signs."""
    slope = 0.125 * (activation == "leaky_relu")
    case = sparse(conv(9, 19, c=12, k=3), density=0.9, rows_at_once=2)
    case = pooled(case, RESNET, bias=True, activation=activation, slope=slope)
    values = operands(case)
    np.testing.assert_array_equal(run_pooled(case, values), apart(case, values))


def test_a_slope_below_zero():
    """What falls has its least number where the sums have their largest."""
    case = pooled(sparse(conv(9, 12)), RESNET, activation="leaky_relu", slope=-0.5)
    values = operands(case)
    np.testing.assert_array_equal(run_pooled(case, values), apart(case, values))


MANY = pooled(sparse(conv(22, 13, n=3, c=9, k=7), panel_vectors=5, k_block=4), RESNET)


def test_same_bits_with_any_number_of_threads():
    layout = sparse_layout(MANY.plan, MANY.lanes)
    assert (layout.tasks, layout.turns) == (3 * 2, layout.panels) and layout.panels > 2
    values = operands(MANY)
    first = apart(MANY, values)
    for threads in (1, 2, 3):
        for _ in range(2):
            out = in_new_thread(threads, lambda: run_pooled(MANY, values))
            np.testing.assert_array_equal(out, first)


def test_what_scratch_held_before_does_not_matter():
    """A call leaves NaN in the scratch that the next call takes from the pool."""
    x, *others = operands(MANY)
    bad = run_pooled(MANY, [np.full_like(x, np.nan), *others])
    assert np.isnan(bad).any()
    np.testing.assert_array_equal(run_pooled(MANY, [x, *others]), apart(MANY, [x, *others]))


@pytest.mark.parametrize(
    ("shape", "epilogue", "reason"),
    [
        (conv(9, 9), Epilogue(pool="average"), "rows have no average pool"),
        (conv(9, 9, r=1, padding=NONE), Epilogue(pool="max"), "1x1 filters compute runs of pixels"),
        (conv(9, 9), Epilogue(pool="max", window=Window(6, 2)), "not pooled with 6x2/2 windows"),
        (
            conv(9, 9),
            Epilogue(pool="max", window=Window(2, 2, 2, 3)),
            "not pooled with 2x2/2x3 windows",
        ),
        (conv(9, 6), Epilogue(pool="max"), "rows of 3 outputs are pooled by themselves"),
        (conv(9, 9), Epilogue(residual=True, pool="max"), "a residual is added before it"),
        (conv(9, 2, padding=NONE, r=1), Epilogue(pool="max", window=Window(2, 3)), "has no window"),
    ],
)
def test_what_rows_are_not_pooled_with(shape, epilogue, reason):
    case = sparse(shape, epilogue=epilogue)
    assert reason in pool_refusal(case.plan, epilogue)
    with pytest.raises(ConfigError, match=reason):
        build_conv(case.plan, epilogue, (((1,), "int32"),) * 4, 8, 16)


def test_weights_are_packed_for_the_pool():
    case = pooled(sparse(conv(9, 9)), RESNET)
    with pytest.raises(ConfigError, match=r"a plan whose pool is .'max'.* that pools .'none'"):
        build_conv(case.plan, Epilogue(), (((1,), "int32"),) * 4, 8, 16)


def test_the_name_tells_the_window():
    case = pooled(sparse(conv(9, 9)), RESNET)
    name = "sparse_direct_3x3_c3k4_n1h9w9_max_pool"
    assert kernel_name(case.plan, case.epilogue) == f"{name}_3x3x2x2x1x1x1x1"
    assert kernel_name(case.plan, Epilogue(pool="max")) == name
