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


def scale_and_shift(b, x, scale=SCALE, shift=SHIFT):
    scaled = b.emit(relax.op.multiply(x, per_channel(scale)))
    return b.emit(relax.op.add(scaled, per_channel(shift)))


@pytest.mark.parametrize(
    "between",
    [
        lambda b, x, y: b.emit(relax.op.nn.relu(y)),
        lambda b, x, y: b.emit(relax.op.add(y, x)),
    ],
    ids=["relu", "sum"],
)
def test_what_cannot_go_into_weights_becomes_scale_and_shift(between, rng):
    weight = rng.standard_normal((K, K, 3, 3)).astype("float32")

    def build(norm):
        return module(lambda b, x: norm(b, between(b, x, conv(b, x, weight))), (1, K, 5, 4))

    folded(build(batch_norm), build(scale_and_shift))


def test_what_others_see_too_stays(rng):
    weight = rng.standard_normal((K, K, 3, 3)).astype("float32")

    def build(norm):
        def body(b, x):
            y = conv(b, x, weight)
            return b.emit(relax.op.add(norm(b, y), y))

        return module(body, (1, K, 5, 4))

    folded(build(batch_norm), build(scale_and_shift))


def statistics_used(b, x, weight):
    operands = (const(GAMMA), const(BETA), const(MEAN), const(VARIANCE))
    norm = b.emit(relax.op.nn.batch_norm(conv(b, x, weight), *operands, axis=1))
    first, second = (b.emit(relax.TupleGetItem(norm, i)) for i in (0, 1))
    return b.emit(relax.Tuple([first, second]))


@pytest.mark.parametrize(
    "build",
    [
        conv,
        lambda b, x, w: b.emit(relax.op.add(conv(b, x, w), per_channel(BIAS))),
        lambda b, x, w: batch_norm(b, conv(b, x, w), training=True),
        lambda b, x, w: b.emit(relax.op.multiply(conv(b, x, w), x)),
        lambda b, x, w: b.emit(relax.op.divide(conv(b, x, w), per_channel(BIAS * [0, 1, 1]))),
        lambda b, x, w: b.emit(relax.op.divide(per_channel(BIAS), conv(b, x, w))),
        statistics_used,
    ],
    ids=["no norm", "bias", "training", "product of maps", "by zero", "inverse", "statistics used"],
)
def test_no_match_leaves_the_module_alone(rng, build):
    weight = rng.standard_normal((K, K, 3, 3)).astype("float32")
    before = module(lambda b, x: build(b, x, weight), (1, K, 5, 4))
    tvm.ir.assert_structural_equal(FoldBatchNorm()(before), before)


def test_products_and_sums_count_like_batch_norm(spatial):
    """As in networks that keep BatchNorm's scale in a layer of its own."""
    factor = np.array([2.0, 4.0, -1.0])

    def build(b, x):
        y = b.emit(relax.op.subtract(batch_norm(b, conv(b, x, spatial)), per_channel(BIAS)))
        y = b.emit(relax.op.multiply(per_channel(factor), y))
        y = b.emit(relax.op.subtract(const(1.0), y))
        return b.emit(relax.op.divide(y, const(2.0)))

    def expected(b, x):
        scaled = conv(b, x, spatial * (SCALE * factor * -0.5)[:, None, None, None])
        shift = ((SHIFT - BIAS) * factor - 1) * -0.5
        return b.emit(relax.op.add(scaled, per_channel(shift)))

    folded(module(build, SHAPE), module(expected, SHAPE))


def test_into_grouped_strided_convolutions(rng):
    weight = rng.integers(-8, 8, (K, 1, 3, 2)).astype("float32")

    def build(b, x, w):
        return b.emit(relax.op.nn.conv2d(x, const(w), strides=(2, 1), padding=1, groups=K))

    before = module(lambda b, x: batch_norm(b, build(b, x, weight)), (1, K, 7, 6))

    def expected(b, x):
        return b.emit(
            relax.op.add(build(b, x, weight * SCALE[:, None, None, None]), per_channel(SHIFT))
        )

    folded(before, module(expected, (1, K, 7, 6)))


def test_into_transposed_convolutions(rng):
    weight = rng.integers(-8, 8, (C, K, 2, 2)).astype("float32")

    def build(b, x, w):
        return b.emit(relax.op.nn.conv2d_transpose(x, const(w), strides=2))

    def expected(b, x):
        y = build(b, x, weight * SCALE[None, :, None, None])
        return b.emit(relax.op.add(y, per_channel(SHIFT)))

    before = module(lambda b, x: batch_norm(b, build(b, x, weight)), SHAPE)
    folded(before, module(expected, SHAPE))


def test_into_linear_layers(rng):
    weight = rng.integers(-8, 8, (K, 5)).astype("float32")  # as PyTorch keeps it

    def build(b, x):
        transposed = b.emit(relax.op.permute_dims(const(weight)))
        y = b.emit(relax.op.matmul(x, transposed))
        return batch_norm(b, b.emit(relax.op.add(y, const(BIAS))))

    def expected(b, x):
        y = b.emit(relax.op.matmul(x, const(weight.T * SCALE)))
        return b.emit(relax.op.add(y, const((BIAS * SCALE + SHIFT)[None])))

    folded(module(build, (2, 5)), module(expected, (2, 5)))


@pytest.mark.parametrize("groups", [1, K])
def test_before_a_convolution_without_padding(rng, groups):
    weight = rng.integers(-8, 8, (2 * K, K // groups, 1, 2)).astype("float32")

    def build(b, x):
        relu = b.emit(relax.op.nn.relu(x))
        return b.emit(relax.op.nn.conv2d(batch_norm(b, relu), const(weight), groups=groups))

    after = FoldBatchNorm()(module(build, (1, K, 5, 4)))
    assert operators(after) == ["relax.nn.relu", "relax.nn.conv2d", "relax.add"]
    relax.analysis.well_formed(after)
    x = rng.integers(-8, 8, (1, K, 5, 4)).astype("float32")
    want = evaluate(relax.transform.DecomposeOpsForInference()(module(build, (1, K, 5, 4))), x)
    np.testing.assert_allclose(evaluate(after, x), want, atol=1e-5 * np.abs(want).max())


def test_before_a_convolution_with_padding_only_scale_and_shift(rng):
    """Zeros around the map are not shifted."""
    weight = rng.integers(-8, 8, (2, K, 3, 3)).astype("float32")
    shape = (1, K, 5, 4)
    folded(
        module(lambda b, x: conv(b, batch_norm(b, x), weight), shape),
        module(lambda b, x: conv(b, scale_and_shift(b, x), weight), shape),
    )


def test_what_would_not_be_finite_stays(spatial):
    def build(b, x):
        return b.emit(relax.op.multiply(conv(b, x, spatial), per_channel(BIAS * np.inf)))

    before = module(build, SHAPE)
    tvm.ir.assert_structural_equal(FoldBatchNorm()(before), before)


def test_a_weight_that_is_an_input_stays(rng):
    def build(norm):
        def body(b, x, w):
            return norm(b, b.emit(relax.op.nn.conv2d(x, w, padding=1)))

        return module(body, SHAPE, (K, C, 3, 3))

    folded(build(batch_norm), build(scale_and_shift))
