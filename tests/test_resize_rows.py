"""Maps resized row by row, and means of uneven windows, against float64."""

import numpy as np
import pytest
import torch
from relax_networks import evaluate, module
from tvm import relax

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino.relay_passes.legalize_operators import operator_legalizers
from tvm_sparsewino.schedules.resize_axes import Taps, adaptive_mean, cubic, linear
from tvm_sparsewino.schedules.resize_rows import (
    MOST_PIECES,
    MOST_SOURCES,
    build_resize,
    fits,
    resize_tables,
)
from tvm_sparsewino.schedules.target import parse_target

HOST = parse_target("native")
F32 = 2e-6  # of the largest input: weights and products are rounded to float32


def as_matrix(axis):
    made = np.zeros((axis.outputs, axis.size))
    for i, (taken, weights) in enumerate(zip(axis.taken, axis.weights, strict=True)):
        np.add.at(made[i], taken, weights.astype("float64"))
    return made


def run(x, rows, columns, lanes):
    assert fits(columns, lanes)
    kernel = build_resize(x.shape[:2], rows, columns, lanes)
    built = tvm_ir.build_module(kernel, HOST.tvm_target())
    out = np.full((*x.shape[:2], rows.outputs, columns.outputs), np.nan, np.float32)
    arrays = [x, *resize_tables(rows, columns, lanes), out]
    tensors = [tvm_ir.runtime_tensor(array) for array in arrays]
    built[str(kernel.attrs["global_symbol"])](*tensors)
    return tensors[-1].numpy()


def half_pixel(size, target):
    return linear(size, target, "half_pixel").table()


def spline(size, target):
    return cubic(size, target, "align_corners", -0.75, False).table()


# Rows and columns: more and fewer than a vector, whole vectors and not, several tasks.
SIZES = [((5, 7), (10, 14)), ((17, 33), (9, 20)), ((1, 1), (3, 2)), ((8, 16), (40, 17))]
SIZES += [((6, 40), (6, 21)), ((30, 3), (3, 30))]


@pytest.mark.parametrize("lanes", sorted({2, 4, 8, 16}))
@pytest.mark.parametrize("axis", [half_pixel, spline, adaptive_mean])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_against_matrices(old, new, axis, lanes, rng):
    x = rng.standard_normal((2, 3, *old)).astype("float32")
    rows, columns = (axis(*sizes) for sizes in zip(old, new, strict=True))
    if not fits(columns, lanes):
        assert old[1] > MOST_SOURCES * lanes
        return
    want = np.einsum("yh,nchw,zw->ncyz", as_matrix(rows), x.astype("float64"), as_matrix(columns))
    assert np.abs(run(x, rows, columns, lanes) - want).max() <= F32 * np.abs(x).max()


def test_what_does_not_fit():
    assert fits(half_pixel(100, 50), 8)
    assert not fits(half_pixel(100, 50), 1)  # no vectors
    assert not fits(half_pixel(1000, 50), 8)  # a vector's inputs lie far from each other
    long = half_pixel(8 * MOST_PIECES // 2, 8 * MOST_PIECES // 2)
    assert fits(Taps(long.size, long.taken[:-7], long.weights[:-7]), 8)
    wider = half_pixel(8 * MOST_PIECES // 2, 8 * MOST_PIECES // 2 + 1)
    assert not fits(wider, 8)  # too much code


@pytest.mark.parametrize("size", range(1, 15))
def test_windows_of_adaptive_pooling(size):
    for target in range(1, 15):
        x = torch.eye(size, dtype=torch.float64)
        want = torch.nn.functional.adaptive_avg_pool1d(x, target).numpy().T
        axis = adaptive_mean(size, target)
        np.testing.assert_allclose(as_matrix(axis), want, atol=1e-7)  # thirds and the like
        assert axis.weights.all()  # nothing is multiplied with 0: infinity stays what it is


def pooled(x, target):
    mod = module(
        lambda b, v: b.emit(relax.op.nn.adaptive_avg_pool2d(v, target)),
        x.shape,
    )
    return evaluate(mod, x, pipeline="sparsewino")


@pytest.mark.parametrize(
    ("size", "target"), [((13, 13), (6, 6)), ((7, 5), (3, 4)), ((4, 6), (2, 3)), ((50, 90), (3, 2))]
)
def test_adaptive_pooling_of_a_network(size, target, rng):
    """The last two are left to TVM: even windows, and columns far from each other."""
    x = rng.standard_normal((2, 3, *size)).astype("float32")
    want = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x).double(), target).numpy()
    assert np.abs(pooled(x, target) - want).max() <= F32 * np.abs(x).max()


def test_infinity_stays_in_its_windows():
    x = np.zeros((1, 1, 8, 8), np.float32)
    x[0, 0, 4, 4] = np.inf
    want = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), 3).numpy()
    assert np.isinf(want).sum() == 1
    assert np.array_equal(pooled(x, (3, 3)), want)


def lowered(call, *shapes):
    mod = module(lambda b, *variables: b.emit(call(*variables)), *shapes)
    return relax.transform.LegalizeOps(operator_legalizers(8))(mod)


def names(mod):
    return [v.name_hint for v in mod.get_global_vars() if v.name_hint != "main"]


def test_which_kernel_is_taken():
    def resize(target, method="linear"):
        return lambda v: relax.op.image.resize2d(v, relax.ShapeExpr(target), method=method)

    ((rows,), (phases,), (nearest,), (wide,)) = (
        names(lowered(call, (1, 4, 9, 400)))
        for call in (
            resize((12, 300)),
            resize((9, 40)),
            resize((18, 800), "nearest_neighbor"),
            lambda v: relax.op.nn.adaptive_avg_pool2d(v, (4, 3)),
        )
    )
    assert rows == "resize_rows_n1c4h9w400_to_12x300"
    assert (phases, nearest, wide) == ("resize2d", "resize2d", "adaptive_avg_pool2d")


def test_windows_of_one_number_are_no_kernel(rng):
    mod = lowered(lambda v: relax.op.nn.adaptive_avg_pool2d(v, (7, 5)), (1, 4, 7, 5))
    assert names(mod) == []
    x = rng.standard_normal((2, 3, 7, 5)).astype("float32")
    mod = module(
        lambda b, v: b.emit(relax.op.nn.relu(b.emit(relax.op.nn.adaptive_avg_pool2d(v, (7, 5))))),
        x.shape,
    )
    assert np.array_equal(evaluate(mod, x, pipeline="sparsewino"), np.maximum(x, 0))
