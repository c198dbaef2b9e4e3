"""FoldBatchNorm: before and expected modules. Numbers are chosen so that folding is exact."""

import numpy as np
import pytest
import tvm
from relax_networks import const, conv, evaluate, module, operators, per_channel, winograd
from tvm import relax

from tvm_sparsewino.relay_passes import FoldBatchNorm

C, K = 2, 3
SHAPE = (1, C, 5, 4)
GAMMA, BETA = np.array([2.0, -4.0, 0.5]), np.array([1.0, 0.0, -2.0])
MEAN, VARIANCE = np.array([3.0, -1.0, 2.0]), np.array([4.0, 16.0, 1.0])
SCALE = GAMMA / np.sqrt(VARIANCE)
SHIFT = BETA - MEAN * SCALE
BIAS = np.array([1.0, 2.0, 4.0])


@pytest.fixture
def spatial(rng):
    return rng.integers(-8, 8, (K, C, 3, 3)).astype("float32")


@pytest.fixture
def coefficients(rng):
    return rng.integers(-8, 8, (36, K, C)).astype("float32")


def batch_norm(builder, x, gamma=None, **attrs):
    operands = (const(GAMMA if gamma is None else gamma), const(BETA), const(MEAN))
    attrs = {"axis": 1, "epsilon": 0.0, "training": False} | attrs
    norm = builder.emit(relax.op.nn.batch_norm(x, *operands, const(VARIANCE), **attrs))
    return builder.emit(relax.TupleGetItem(norm, 0))


def folded(before, expected):
    after = FoldBatchNorm()(before)
    tvm.ir.assert_structural_equal(after, expected)
    relax.analysis.well_formed(after)


def test_into_a_plain_convolution(spatial):
    before = module(lambda b, x: batch_norm(b, conv(b, x, spatial)), SHAPE)

    def expected(b, x):
        scaled = conv(b, x, spatial * SCALE[:, None, None, None])
        return b.emit(relax.op.add(scaled, per_channel(SHIFT)))

    folded(before, module(expected, SHAPE))


def test_into_winograd_coefficients(coefficients):
    before = module(lambda b, x: batch_norm(b, winograd(b, x, coefficients, bias=BIAS)), SHAPE)

    def expected(b, x):
        scaled = winograd(b, x, coefficients * SCALE[None, :, None])
        return b.emit(relax.op.add(scaled, per_channel(BIAS * SCALE + SHIFT)))

    folded(before, module(expected, SHAPE))


def test_a_bias_between_is_taken_along(spatial):
    """PyTorch's importer makes the bias a reshape of a constant."""

    def build(b, x):
        bias = b.emit(relax.op.reshape(const(BIAS), (1, K, 1, 1)))
        return batch_norm(b, b.emit(relax.op.add(conv(b, x, spatial), bias)))

    def expected(b, x):
        scaled = conv(b, x, spatial * SCALE[:, None, None, None])
        return b.emit(relax.op.add(scaled, per_channel(BIAS * SCALE + SHIFT)))

    folded(module(build, SHAPE), module(expected, SHAPE))


def test_without_scale_and_centre(spatial):
    before = module(
        lambda b, x: batch_norm(b, conv(b, x, spatial), scale=False, center=False), SHAPE
    )
    own = 1 / np.sqrt(VARIANCE)

    def expected(b, x):
        scaled = conv(b, x, spatial * own[:, None, None, None])
        return b.emit(relax.op.add(scaled, per_channel(-MEAN * own)))

    folded(before, module(expected, SHAPE))


def test_the_function_stays_the_same(rng, coefficients):
    """With an epsilon and awkward numbers, against TVM's own BatchNorm."""
    gamma = rng.uniform(0.5, 2, K)
    before = module(
        lambda b, x: batch_norm(b, winograd(b, x, coefficients), gamma, epsilon=1e-3), SHAPE
    )
    after = FoldBatchNorm()(before)
    assert operators(after) == ["sparsewino.winograd_conv2d", "relax.add"]
    x = rng.standard_normal(SHAPE).astype("float32")
    want = evaluate(relax.transform.DecomposeOpsForInference()(before), x)
    # Both round in float32, in another order.
    np.testing.assert_allclose(evaluate(after, x), want, atol=1e-5 * np.abs(want).max())


def used_twice(b, x, weight):
    y = conv(b, x, weight)
    return b.emit(relax.op.add(batch_norm(b, y), y))


def statistics_used(b, x, weight):
    operands = (const(GAMMA), const(BETA), const(MEAN), const(VARIANCE))
    norm = b.emit(relax.op.nn.batch_norm(conv(b, x, weight), *operands, axis=1))
    first, second = (b.emit(relax.TupleGetItem(norm, i)) for i in (0, 1))
    return b.emit(relax.Tuple([first, second]))


@pytest.mark.parametrize(
    "build",
    [
        conv,
        lambda b, x, w: batch_norm(b, b.emit(relax.op.nn.relu(conv(b, x, w)))),
        lambda b, x, w: batch_norm(b, conv(b, x, w), training=True),
        lambda b, x, w: batch_norm(b, b.emit(relax.op.add(conv(b, x, w), x))),
        used_twice,
        statistics_used,
    ],
    ids=["no norm", "relu between", "training", "sum between", "used twice", "statistics used"],
)
def test_no_match_leaves_the_module_alone(rng, build):
    weight = rng.standard_normal((K, K, 3, 3)).astype("float32")
    before = module(lambda b, x: build(b, x, weight), (1, K, 5, 4))
    tvm.ir.assert_structural_equal(FoldBatchNorm()(before), before)


def test_a_weight_that_is_an_input_stays(rng):
    def build(b, x, w):
        return batch_norm(b, b.emit(relax.op.nn.conv2d(x, w, padding=1)))

    before = module(build, SHAPE, (K, C, 3, 3))
    tvm.ir.assert_structural_equal(FoldBatchNorm()(before), before)
