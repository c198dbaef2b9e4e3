"""Resized maps against the formulas in float64: axes alone, and compiled."""

import numpy as np
import pytest
from relax_networks import evaluate, module
from tvm import relax

from tvm_sparsewino.schedules.resampling import resample_tables
from tvm_sparsewino.schedules.resize_axes import COORDINATES, ROUNDINGS, cubic, linear, nearest

F32 = 2e-6  # of the largest input: weights and products are rounded to float32


def place(coordinate, i, size, target):
    """Coordinate of output ``i`` as the operator's definition writes it."""
    scale = size / target
    if coordinate == "align_corners":
        return i * (size - 1) / (target - 1) if target > 1 else 0.0
    if coordinate == "asymmetric":
        return i * scale
    if coordinate == "tf_half_pixel_for_nn":
        return (i + 0.5) * scale
    if coordinate == "pytorch_half_pixel" and target == 1:
        return 0.0
    return (i + 0.5) * scale - 0.5


def spline(x, a):
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def matrix(method, coordinate, size, target, alpha=-0.75, exclude=False):
    """[target, size]: the axis as a matrix, one weight at a time."""
    made = np.zeros((target, size))
    for i in range(target):
        at = place(coordinate, i, size, target)
        taps = range(int(np.floor(at)) - 1, int(np.floor(at)) + 3)
        if method == "linear":
            weights = [max(0.0, 1 - abs(at - tap)) for tap in taps]
        else:
            weights = [spline(at - tap, alpha) for tap in taps]
        if exclude:
            weights = [w if 0 <= tap < size else 0.0 for tap, w in zip(taps, weights, strict=True)]
            weights = [w / sum(weights) for w in weights]
        for tap, weight in zip(taps, weights, strict=True):
            made[i, min(max(tap, 0), size - 1)] += weight
    return made


def as_matrix(axis):
    made = np.zeros((axis.outputs, axis.size))
    for i, (taken, weights) in enumerate(zip(axis.taken(), axis.weights, strict=True)):
        np.add.at(made[i], taken, weights)
    return made


SIZES = [(5, 10), (6, 9), (7, 3), (8, 4), (1, 6), (6, 1), (5, 5), (13, 29), (1, 1), (4, 32)]


@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize(("size", "target"), SIZES)
def test_axes(size, target, coordinate):
    np.testing.assert_allclose(
        as_matrix(linear(size, target, coordinate)),
        matrix("linear", coordinate, size, target),
        atol=1e-6,
    )
    for alpha, exclude in ((-0.75, False), (-0.5, True)):
        np.testing.assert_allclose(
            as_matrix(cubic(size, target, coordinate, alpha, exclude)),
            matrix("cubic", coordinate, size, target, alpha, exclude),
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ("rounding", "function"),
    [
        ("round", np.round),
        ("round_prefer_floor", lambda x: np.ceil(x - 0.5)),
        ("round_prefer_ceil", lambda x: np.floor(x + 0.5)),
        ("floor", np.floor),
        ("ceil", np.ceil),
    ],
)
def test_roundings(rounding, function):
    n = np.arange(-9, 20)
    assert np.array_equal(ROUNDINGS[rounding](n, 4), function(n / 4))  # quarters are exact


@pytest.mark.parametrize(
    ("axis", "period"),
    [
        (linear(5, 10, "half_pixel"), (2, 1)),
        (linear(10, 5, "half_pixel"), (1, 2)),
        (linear(6, 9, "asymmetric"), (3, 2)),
        (linear(6, 11, "align_corners"), None),
        (linear(1, 3, "half_pixel"), (3, 0)),
        (nearest(4, 36, "asymmetric", "floor"), None),  # 9 outputs are more than 8
        (cubic(4, 8, "half_pixel", -0.75, True), (8, 0)),  # ends differ from the middle
    ],
)
def test_periods(axis, period):
    assert axis.period(8) == period


def test_an_axis_that_keeps_its_numbers():
    assert linear(5, 5, "align_corners").keeps and cubic(4, 4, "half_pixel", -0.75, False).keeps
    assert not linear(5, 4, "asymmetric").keeps


def test_tables_stay_inside():
    axis = nearest(3, 5, "tf_half_pixel_for_nn", "ceil")
    assert axis.first.max() == 3
    rows, _, columns, _ = resample_tables(axis, axis)
    assert rows.max() == 2 and columns.max() == 2
    assert rows.shape == (5, 1) and columns.shape == (1, 5)


def resized(x, target, **options):
    """What our pipeline computes."""
    mod = module(
        lambda b, v: b.emit(relax.op.image.resize2d(v, relax.ShapeExpr(target), **options)),
        x.shape,
    )
    return evaluate(mod, x, pipeline="sparsewino")


# Rows and columns by turns: enlarged by whole numbers or not, made smaller, kept, one.
TARGETS = [(10, 14), (9, 7), (5, 21), (1, 1), (3, 3), (40, 6), (11, 13)]
CASES = [(target, "half_pixel", "linear") for target in TARGETS]
CASES += [((10, 14), coordinate, "linear") for coordinate in COORDINATES]
CASES += [(target, "align_corners", "cubic") for target in ((10, 14), (3, 21), (4, 3))]


@pytest.mark.parametrize(("target", "coordinate", "method"), CASES)
def test_interpolation(target, method, coordinate, rng):
    x = rng.standard_normal((2, 3, 5, 7)).astype("float32")
    rows, columns = (
        matrix(method, coordinate, old, new) for old, new in zip((5, 7), target, strict=True)
    )
    want = np.einsum("yh,nchw,zw->ncyz", rows, x.astype("float64"), columns)
    got = resized(x, target, method=method, coordinate_transformation_mode=coordinate)
    assert np.abs(got - want).max() <= F32 * np.abs(x).max()


@pytest.mark.parametrize("exclude", [0, 1])
def test_cubic_options(exclude, rng):
    x = rng.standard_normal((1, 2, 6, 9)).astype("float32")
    rows, columns = (
        matrix("cubic", "half_pixel", old, new, -0.5, bool(exclude))
        for old, new in ((6, 12), (9, 11))
    )
    want = np.einsum("yh,nchw,zw->ncyz", rows, x.astype("float64"), columns)
    got = resized(x, (12, 11), method="cubic", cubic_alpha=-0.5, cubic_exclude=exclude)
    assert np.abs(got - want).max() <= F32 * np.abs(x).max()


@pytest.mark.parametrize(
    ("coordinate", "rounding", "target"),
    [
        ("half_pixel", "round", (8, 4)),
        ("asymmetric", "", (2, 16)),
        ("align_corners", "", (4, 15)),
        ("tf_half_pixel_for_nn", "ceil", (1, 64)),
        ("asymmetric", "round_prefer_ceil", (9, 12)),
    ],
)
def test_nearest(coordinate, rounding, target, rng):
    x = rng.standard_normal((1, 3, 4, 8)).astype("float32")
    default = "round" if coordinate == "align_corners" else "floor"
    rows, columns = (
        nearest(old, new, coordinate, rounding or default).taken()[:, 0]
        for old, new in zip(x.shape[2:], target, strict=True)
    )
    options = {"rounding_method": rounding, "coordinate_transformation_mode": coordinate}
    got = resized(x, target, method="nearest_neighbor", **options)
    assert np.array_equal(got, x[:, :, rows][..., columns])


def test_maps_that_lie_otherwise_or_are_cut_out(rng):
    x = rng.standard_normal((1, 5, 7, 3)).astype("float32")
    rows, columns = matrix("linear", "half_pixel", 5, 10), matrix("linear", "half_pixel", 7, 14)
    want = np.einsum("yh,nhwc,zw->nyzc", rows, x.astype("float64"), columns)
    assert np.abs(resized(x, (10, 14), layout="NHWC") - want).max() <= F32 * np.abs(x).max()
    cut = resized(
        x.transpose(0, 3, 1, 2).copy(),
        (5, 7),
        roi=(0.0, 0.0, 1.0, 1.0),
        coordinate_transformation_mode="tf_crop_and_resize",
    )
    assert np.abs(cut - x.transpose(0, 3, 1, 2)).max() <= 1e-5


def test_what_is_no_number_stays_where_it_is():
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 0, 0] = np.nan
    got = resized(x, (8, 8), method="linear")
    assert np.isnan(got[0, 0, :3, :3]).all() and not np.isnan(got[0, 0, 3:, :]).any()
