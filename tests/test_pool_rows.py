"""Pooling with small windows, against PyTorch in float64."""

import numpy as np
import pytest
import torch
from relax_networks import module
from torch.nn import functional
from tvm import relax

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino.relay_passes.legalize_operators import operator_legalizers
from tvm_sparsewino.schedules.pool_rows import MOST_PIECES, build_pool, fits, pool_table
from tvm_sparsewino.schedules.pooling import Pool
from tvm_sparsewino.schedules.target import parse_target

HOST = parse_target("native")
F32 = 1e-6  # of the largest number: a sum of up to 25, two rounded shares


def run(x, kind, pool, lanes):
    assert fits(pool, x.shape[3], lanes)
    kernel = build_pool(x.shape, kind, pool, lanes)
    built = tvm_ir.build_module(kernel, HOST.tvm_target())
    out = np.full((*x.shape[:2], *pool.output), np.nan, np.float32)
    tensors = [tvm_ir.runtime_tensor(a) for a in (x, pool_table(kind, pool, x.shape[2:]), out)]
    built[str(kernel.attrs["global_symbol"])](*tensors)
    return tensors[-1].numpy()


# Map, window, stride, padding on all sides, ceil mode: whole vectors and not, one row, borders that
# cover vectors, strides beyond the window, windows cut off below and to the right.
CASES = [
    ((11, 13), (3, 3), (2, 2), (1, 1), False),
    ((8, 16), (2, 2), (2, 2), (0, 0), False),
    ((9, 17), (3, 3), (2, 2), (0, 0), True),
    ((14, 14), (3, 3), (1, 1), (1, 1), False),
    ((7, 21), (3, 2), (1, 1), (1, 1), False),
    ((10, 9), (2, 3), (3, 2), (0, 1), True),
    ((5, 30), (5, 5), (1, 2), (2, 2), False),
    ((1, 4), (1, 1), (1, 1), (0, 0), False),
    ((2, 40), (5, 5), (2, 1), (2, 2), False),
    ((6, 12), (1, 1), (2, 2), (0, 0), False),
]


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("kind", ["max", "mean", "mean counting"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_pytorch(case, kind, lanes, rng):
    size, window, stride, padding, ceil = case
    x = rng.standard_normal((2, 3, *size)).astype("float32") - 5  # below zeros of a wrong border
    exact = torch.from_numpy(x).double()
    if kind == "max":
        want = functional.max_pool2d(exact, window, stride, padding, ceil_mode=ceil)
    else:
        counting = "counting" in kind
        want = functional.avg_pool2d(exact, window, stride, padding, ceil, counting)
    (top, left), output = padding, tuple(want.shape[2:])
    pool = Pool(window, stride, (1, 1), (top, left, top, left), output, "counting" in kind)
    got = run(x, kind.split()[0], pool, lanes)
    assert np.abs(got - want.numpy()).max() <= F32 * np.abs(x).max()


def test_numbers_that_are_none_stay(rng):
    x = rng.standard_normal((1, 2, 9, 12)).astype("float32")
    x[0, 0] = -np.inf
    x[0, 1, 4, 5] = np.inf
    pool = Pool((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (9, 12))
    want = functional.max_pool2d(torch.from_numpy(x), 3, 1, 1).numpy()
    assert np.array_equal(run(x, "max", pool, 8), want)


def test_windows_wholly_outside():
    pool = Pool((2, 2), (3, 2), (1, 1), (0, 0, 0, 0), (3, 6))
    got = run(np.ones((1, 1, 6, 10), np.float32), "mean", pool, 4)
    assert (got[0, 0, :2, :5] == 1).all()
    assert (got[0, 0, 2] == 0).all() and (got[0, 0, :, 5] == 0).all()


POOL = {"window": (3, 3), "stride": (2, 2), "dilation": (1, 1), "padding": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("change", "width", "output"),
    [
        ({"window": (6, 3)}, 32, (16, 16)),
        ({"stride": (2, 3)}, 32, (16, 11)),
        ({"dilation": (1, 2)}, 32, (16, 15)),
        ({}, 3, (16, 2)),
        ({}, 16 * MOST_PIECES + 16, (16, 8 * MOST_PIECES + 8)),
    ],
    ids=str,
)
def test_others_are_left_to_loops(change, width, output):
    assert not fits(Pool(**{**POOL, **change}, output=output), width, 8)


@pytest.mark.parametrize(("window", "ours"), [(3, True), (7, False)])
def test_legalised(window, ours):
    mod = module(lambda b, x: b.emit(relax.op.nn.max_pool2d(x, (window, window))), (1, 2, 20, 20))
    with HOST.tvm_target():
        mod = relax.transform.LegalizeOps(operator_legalizers(8))(mod)
    names = [v.name_hint for v in mod.get_global_vars() if v.name_hint != "main"]
    assert [name.startswith("max_pool_3x3") for name in names] == [ours]
