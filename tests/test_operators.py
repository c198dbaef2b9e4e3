"""Operators without kernels of their own, compiled, against NumPy in float64."""

import math

import numpy as np
import pytest
import tvm
from relax_networks import const, evaluate, module
from tvm import relax, te

from tvm_sparsewino._compat import (
    child_blocks,
    crossing_loop,
    loop_extent,
    make_target,
    schedule,
)
from tvm_sparsewino.schedules.general import schedule_function

F32 = 1e-6  # of the largest possible sum: float32 rounds every addition
MATH = 4e-7  # what :mod:`tvm_sparsewino.schedules.vector_math` promises, and one rounding


def compiled(call, *arrays):
    """What our pipeline's code returns for an operator applied to arrays."""
    mod = module(lambda b, *x: b.emit(call(*x)), *(a.shape for a in arrays))
    return evaluate(mod, *arrays, pipeline="sparsewino")


def numbers(rng, *shape, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype("float32")


# ---- functions of single numbers ---------------------------------------------------------------

WIDE = np.concatenate(
    [
        np.linspace(-104, 90, 1501),
        np.linspace(-1e-3, 1e-3, 101),
        [0.0, -0.0, 88.72, 88.73, -87.33, 1e30, -1e30, math.inf, -math.inf],
    ]
).astype("float32")


def _exp(x):
    with np.errstate(over="ignore"):
        return np.exp(x)


def _erf(x):
    return np.array([math.erf(v) for v in x])


@pytest.mark.parametrize(
    ("operator", "function"),
    [
        (relax.op.sigmoid, lambda x: 1 / (1 + _exp(-x))),
        (relax.op.tanh, np.tanh),
        (relax.op.erf, _erf),
        (relax.op.nn.silu, lambda x: x / (1 + _exp(-x))),
        (relax.op.nn.gelu, lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2),
    ],
)
def test_functions_of_one_number(operator, function):
    x = WIDE[np.abs(WIDE) < 1e29] if operator in (relax.op.nn.silu, relax.op.nn.gelu) else WIDE
    want = function(x.astype("float64"))
    assert np.abs(compiled(operator, x) - want).max() <= MATH * max(np.abs(want).max(), 1)


def test_exp_keeps_its_digits_and_its_ends():
    got, want = compiled(relax.op.exp, WIDE), _exp(WIDE.astype("float64"))
    normal = (WIDE > -87.3) & (WIDE < 88.7)
    assert (np.abs(got[normal] - want[normal]) <= MATH * want[normal]).all()
    assert (got[WIDE < -87.34] == 0).all() and np.isinf(got[WIDE > 88.723]).all()


def test_tanh_keeps_its_digits_near_zero():
    x = np.array([1e-7, 1e-4, 0.1, -0.1, 0.3, -0.4], np.float32)
    want = np.tanh(x.astype("float64"))
    assert (np.abs(compiled(relax.op.tanh, x) - want) <= 5e-7 * np.abs(want)).all()


@pytest.mark.parametrize("exponent", [0.75, 0.25, 0.5, 1.75, 3.0, 0.0, -0.75, -2.0, 0.7, 5.0])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_powers(exponent, shape, rng):
    x = np.array(
        [0.0, -0.0, 1.0, 2.0, 1e-30, 1e30, -1.0, -2.5, math.inf, -math.inf, math.nan], np.float32
    )
    x = np.concatenate([x, np.exp(numbers(rng, 101))])[None]
    got = compiled(lambda a: relax.op.power(a, relax.const(np.full(shape, exponent, "float32"))), x)
    # One for each number: NumPy would take one half as a square root.
    exponents = np.full(x.shape, np.float32(exponent))
    with np.errstate(all="ignore"):
        want = (x.astype("float64") ** exponents).astype("float32")
    np.testing.assert_allclose(got, want, rtol=5e-7, atol=0)
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()


def test_powers_that_differ_are_left_to_tvm(rng):
    x, exponents = np.exp(numbers(rng, 2, 3)), np.array([0.75, 0.5, 2.0], np.float32)
    got = compiled(lambda a: relax.op.power(a, relax.const(exponents)), x)
    np.testing.assert_allclose(got, x**exponents, rtol=1e-6)


def test_powers_are_vectors():
    mod = module(lambda b, x: b.emit(relax.op.power(x, const(0.75))), (4, 64))
    built = tvm.compile(mod, make_target({"kind": "llvm"}), relax_pipeline="sparsewino")
    code = "".join(part.inspect_source("asm") for part in built.mod.imports)
    assert "sqrtps" in code and "powf" not in code


@pytest.mark.parametrize(
    "operator", [relax.op.exp, relax.op.sigmoid, relax.op.tanh, relax.op.nn.silu]
)
def test_what_is_no_number_stays_no_number(operator):
    x = np.array([1.0, math.nan] * 9, np.float32)
    assert np.array_equal(np.isnan(compiled(operator, x)), np.isnan(x))


# ---- reductions --------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1, 1000), -1), ((5, 3), 1), ((2, 3, 33), 2), ((2, 7, 4, 5), 1), ((3, 1), 0), ((19,), 0)],
)
def test_softmax(shape, axis, log, rng):
    x = numbers(rng, *shape, scale=5)
    operator = relax.op.nn.log_softmax if log else relax.op.nn.softmax
    shifted = x.astype("float64") - x.max(axis, keepdims=True)
    sums = np.exp(shifted).sum(axis, keepdims=True)
    want = shifted - np.log(sums) if log else np.exp(shifted) / sums
    got = compiled(lambda v: operator(v, axis), x)
    assert np.abs(got - want).max() <= 1e-6 * max(1, np.abs(want).max())


def test_softmax_takes_masks():
    x = np.array([[0.0, -math.inf, 1.0]], np.float32)
    got = compiled(lambda v: relax.op.nn.softmax(v, -1), x)
    assert got[0, 1] == 0 and abs(got.sum() - 1) < 1e-6


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 64, 7, 7), (2, 3)),
        ((2, 5, 3, 1), (2, 3)),
        ((3, 16, 13, 13), (-1, -2)),
        ((4, 37), 1),
        ((2, 3, 40), (0, 1, 2)),
        ((6, 5, 4), (0,)),
        ((6, 5, 4), (1,)),
        ((6, 5, 4), None),
    ],
)
@pytest.mark.parametrize("kind", ["mean", "sum", "max"])
def test_reductions(shape, axes, keepdims, kind, rng):
    x = numbers(rng, *shape)
    operator = {"mean": relax.op.mean, "sum": relax.op.sum, "max": relax.op.max}[kind]
    want = getattr(np, kind)(x.astype("float64"), axis=axes, keepdims=keepdims)
    got = compiled(lambda v: operator(v, axes, keepdims), x)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= F32 * max(1, np.abs(x).sum() if kind == "sum" else 1)


# ---- pooling -----------------------------------------------------------------------------------

# Map, window, stride, dilation, padding (top, left, bottom, right), ceil mode.
POOLS = [
    ((11, 13), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), False),
    ((8, 8), (2, 2), (2, 2), (1, 1), (0, 0, 0, 0), False),
    ((9, 9), (3, 3), (2, 2), (1, 1), (0, 0, 0, 0), True),
    ((14, 14), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), False),
    ((7, 9), (3, 2), (1, 3), (1, 1), (1, 0, 0, 1), False),
    ((10, 7), (2, 3), (3, 2), (1, 1), (1, 1, 0, 1), True),
    ((6, 6), (6, 6), (1, 1), (1, 1), (0, 0, 0, 0), False),
    ((1, 1), (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), False),
    ((5, 30), (5, 5), (1, 2), (1, 1), (2, 2, 2, 2), False),
    ((12, 12), (3, 3), (2, 2), (2, 2), (1, 1, 1, 1), False),
]
# The last window of rows and columns has nothing of the map.
OUTSIDE = ((6, 6), (2, 2), (3, 3), (1, 1), (0, 0, 0, 0), True)


def pooled(x, window, stride, dilation, padding, output, kind, count_padding):
    """NumPy's answer; an average counts the padding, but nothing beyond it."""
    n, c, h, w = x.shape
    want = np.zeros((n, c, *output))
    for y, z in np.ndindex(*output):
        rows, columns = (
            [i * stride[a] - padding[a] + k * dilation[a] for k in range(window[a])]
            for a, i in enumerate((y, z))
        )
        inside = x[:, :, [r for r in rows if 0 <= r < h]][..., [s for s in columns if 0 <= s < w]]
        if kind == "max":
            want[:, :, y, z] = inside.max((2, 3))
            continue
        counted = [
            max(sum(r < h + padding[2] for r in rows), 1),
            max(sum(s < w + padding[3] for s in columns), 1),
        ]
        count = math.prod(counted) if count_padding else inside[0, 0].size
        want[:, :, y, z] = inside.sum((2, 3)) / max(count, 1)
    return want


@pytest.mark.parametrize(
    ("kind", "pool"),
    [("max", pool) for pool in POOLS]
    + [
        (kind, p) for kind in ("mean", "mean counting") for p in [*POOLS, OUTSIDE] if p[3] == (1, 1)
    ],
    ids=str,
)
def test_pooling(pool, kind, rng):
    (h, w), window, stride, dilation, padding, ceil = pool
    x = numbers(rng, 2, 3, h, w) - 5  # below the zeros that a wrong border would bring
    options = {"strides": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil}
    if kind == "mean counting":
        options["count_include_pad"] = True
    operator = relax.op.nn.max_pool2d if kind == "max" else relax.op.nn.avg_pool2d
    got = compiled(lambda v: operator(v, window, **options), x)
    want = pooled(x, window, stride, dilation, padding, got.shape[2:], kind, "counting" in kind)
    assert np.abs(got - want).max() <= F32 * np.abs(x).max() * 2


@pytest.mark.parametrize("shape", [(1, 70, 21, 40), (1, 9, 5, 64), (3, 40, 6, 7)])
def test_pooling_of_maps_that_threads_share(shape, rng):
    x = numbers(rng, *shape)
    options = {"strides": (2, 2), "padding": (1, 1)}
    got = compiled(lambda v: relax.op.nn.max_pool2d(v, (3, 3), **options), x)
    want = pooled(x, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), got.shape[2:], "max", False)
    assert np.array_equal(got, want)


@pytest.mark.parametrize("operator", [relax.op.nn.max_pool2d, relax.op.nn.avg_pool2d])
def test_other_layouts_are_left_to_tvm(operator, rng):
    x = numbers(rng, 1, 6, 8, 3)
    got = compiled(lambda v: operator(v, (2, 2), strides=(2, 2), layout="NHWC"), x)
    parts = x.reshape(1, 3, 2, 4, 2, 3)
    want = parts.max((2, 4)) if operator is relax.op.nn.max_pool2d else parts.mean((2, 4))
    assert np.abs(got - want).max() <= F32 * 5


# ---- moving numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(10, 12), (15, 18), (5, 18), (10, 6), (3, 2)])
@pytest.mark.parametrize(
    ("mode", "rounding"),
    [("half_pixel", "round"), ("half_pixel", ""), ("asymmetric", "floor"), ("asymmetric", "")],
)
def test_nearest_neighbours(size, mode, rounding, rng):
    """Whole enlargements are ours, the rest TVM's; both against the formula. No size has ties."""
    x = numbers(rng, 2, 3, 5, 6)
    picked = []
    for old, new in zip(x.shape[2:], size, strict=True):
        i = np.arange(new)
        if mode == "half_pixel":
            place = np.floor((i + 0.5) * old / new - (0.0 if rounding else 0.5))
        else:
            place = np.floor(i * old / new + 1e-9)
        picked.append(np.clip(place.astype(int), 0, old - 1))
    options = {"method": "nearest_neighbor", "coordinate_transformation_mode": mode}

    def resize(v):
        shape = relax.ShapeExpr(size)
        return relax.op.image.resize2d(v, shape, rounding_method=rounding, **options)

    got = compiled(resize, x)
    assert np.array_equal(got, x[:, :, picked[0]][..., picked[1]])


@pytest.mark.parametrize("shape", [(2, 12, 5, 7), (1, 16, 8, 8), (1, 4, 33, 1)])
def test_pixels_are_shuffled_and_back(shape, rng):
    n, c, h, w = shape
    x = numbers(rng, *shape)

    def shuffle(b, v):
        v = b.emit(relax.op.reshape(v, (n, c // 4, 2, 2, h, w)))
        v = b.emit(relax.op.permute_dims(v, (0, 1, 4, 2, 5, 3)))
        return b.emit(relax.op.reshape(v, (n, c // 4, 2 * h, 2 * w)))

    def back(b, v):
        v = b.emit(relax.op.reshape(v, (n, c // 4, h, 2, w, 2)))
        v = b.emit(relax.op.permute_dims(v, (0, 1, 3, 5, 2, 4)))
        return b.emit(relax.op.reshape(v, shape))

    shuffled = evaluate(module(shuffle, shape), x, pipeline="sparsewino")
    want = x.reshape(n, c // 4, 2, 2, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(shuffled.shape)
    assert np.array_equal(shuffled, want)
    assert np.array_equal(evaluate(module(back, want.shape), want, pipeline="sparsewino"), x)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((2, 3, 5, 7), (2, 3, 5, 7)),
        ((2, 3, 5, 7), (1, 3, 1, 1)),
        ((16, 3, 5, 7), (5, 7)),
        ((4, 9, 8), (4, 1, 8)),
        ((17, 1, 3), (17, 4, 3)),
        ((40, 40), ()),
    ],
)
def test_operands_of_different_shapes(first, second, rng):
    x, y = numbers(rng, *first), numbers(rng, *second)
    assert np.abs(compiled(relax.op.add, x, y) - (x + y)).max() <= F32


@pytest.mark.parametrize(("shape", "axes"), [((5, 37), 1), ((2, 3, 8, 6), 2), ((9,), 1)])
def test_layer_norm(shape, axes, rng):
    x, last = numbers(rng, *shape, scale=3) + 1, tuple(range(-axes, 0))
    scale, shift = numbers(rng, *shape[-axes:]), numbers(rng, *shape[-axes:])
    got = compiled(lambda v, a, b: relax.op.nn.layer_norm(v, a, b, last, 1e-3), x, scale, shift)
    exact = x.astype("float64")
    mean, variance = exact.mean(last, keepdims=True), exact.var(last, keepdims=True)
    want = (exact - mean) / np.sqrt(variance + 1e-3) * scale + shift
    assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concatenation(axis, rng):
    x = numbers(rng, 3, 5, 7)
    y = numbers(rng, *(extent + (2 if i == axis else 0) for i, extent in enumerate(x.shape)))
    got = compiled(lambda a, b: relax.op.concat([a, b], axis), x, y)
    assert np.array_equal(got, np.concatenate([x, y], axis))


# Lines of 16 numbers, parts of them, primes, rows that are cut, and dimensions between.
TRANSPOSED = [
    ((1, 7, 9, 64), (0, 3, 1, 2)),
    ((2, 5, 8, 24), (0, 3, 1, 2)),
    ((1, 3, 40, 17), (0, 3, 1, 2)),
    ((1, 6, 10, 3), (0, 3, 1, 2)),
    ((2, 20, 7, 9), (0, 2, 3, 1)),
    ((1, 512, 2, 32), (0, 2, 3, 1)),
    ((33, 48), (1, 0)),
    ((4, 5, 6), (2, 1, 0)),
]


@pytest.mark.parametrize(("shape", "axes"), TRANSPOSED, ids=str)
def test_transpositions(shape, axes, rng):
    x, y = numbers(rng, *shape), numbers(rng, *(shape[axis] for axis in axes))
    assert np.array_equal(compiled(lambda v: relax.op.permute_dims(v, axes), x), x.transpose(axes))
    got = compiled(lambda v, w: relax.op.add(relax.op.permute_dims(v, axes), w), x, y)
    assert np.array_equal(got, x.transpose(axes) + y)


def test_transpositions_use_whole_lines():
    x = te.placeholder((1, 56, 56, 64), name="x")
    y = te.compute((1, 64, 56, 56), lambda n, c, h, w: x[n, h, w, c], name="y")
    made = schedule_function(te.create_prim_func([x, y]), 8)
    sch = schedule(made)
    (block,) = child_blocks(sch)
    extents = [loop_extent(sch, loop) for loop in sch.get_loops(block)]
    assert extents == [224, 16, 7, 8]  # everything else, a line, columns, lanes


@pytest.mark.parametrize("size", [5, 7, 14, 28])
def test_channels_are_shuffled(size, rng):
    x = numbers(rng, 2, 12, size, size)
    apart, whole = (2, 3, 4, size, size), x.shape

    def shuffled(v):
        v = relax.op.permute_dims(relax.op.reshape(relax.op.nn.relu(v), apart), (0, 2, 1, 3, 4))
        return relax.op.reshape(v, whole)

    want = np.maximum(x, 0).reshape(apart).transpose(0, 2, 1, 3, 4).reshape(whole)
    assert np.array_equal(compiled(shuffled, x), want)


def test_shuffled_channels_are_runs_of_pixels():
    """What reshapes leave in the indices, w // 28 and h % 28, does not cut them into rows."""
    x = te.placeholder((1, 136, 28, 28), name="x")
    y = te.compute(
        x.shape, lambda n, c, h, w: x[n, c % 4 * 34 + c // 4, (w // 28 + h) % 28, w % 28], name="y"
    )
    sch = schedule(schedule_function(te.create_prim_func([x, y]), 16))
    (block,) = child_blocks(sch)
    assert [loop_extent(sch, loop) for loop in sch.get_loops(block)] == [136, 49, 16]


def test_a_number_for_each_row_is_no_transposition():
    x, b = te.placeholder((1, 64, 8, 16), name="x"), te.placeholder((64,), name="b")
    y = te.compute(x.shape, lambda n, c, h, w: x[n, c, h, w] + b[c], name="y")
    sch = schedule(te.create_prim_func([x, b, y]))
    (block,) = child_blocks(sch)
    assert crossing_loop(sch, block) is None
