"""ToNCHW: before and expected modules, and functions that stay the same."""

import numpy as np
import pytest
import tvm
from relax_networks import const, evaluate, module, operators
from tvm import relax

from tvm_sparsewino import driver
from tvm_sparsewino.relay_passes.to_nchw import ToNCHW

C, K = 3, 4
SHAPE = (2, 6, 5, C)
TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


@pytest.fixture
def weight(rng):
    return rng.integers(-8, 8, (K, C, 3, 3)).astype("float32")


def to_nhwc(b, x):
    return b.emit(relax.op.permute_dims(x, TO_NHWC))


def to_nchw(b, x):
    return b.emit(relax.op.permute_dims(x, TO_NCHW))


def conv(b, x, weight, name="conv"):
    return b.emit(relax.op.nn.conv2d(x, const(weight), padding=1), name_hint=name)


def wrapped(b, x, weight, name="conv"):
    """A convolution as networks from TensorFlow have it in ONNX."""
    return to_nhwc(b, conv(b, to_nchw(b, x), weight, name))


def nhwc(b, x, weight, layout="HWIO", **attrs):
    kernel = weight.transpose(["OIHW".index(letter) for letter in layout])
    call = relax.op.nn.conv2d(
        x, const(kernel), padding=1, data_layout="NHWC", kernel_layout=layout, **attrs
    )
    return b.emit(call, name_hint="conv")


def converted(before, expected):
    after = ToNCHW()(before)
    tvm.ir.assert_structural_equal(after, expected)
    relax.analysis.well_formed(after)


def same_function(before, rng, *shapes):
    """The converted module, which computes the same."""
    after = ToNCHW()(before)
    relax.analysis.well_formed(after)
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    decompose = relax.transform.DecomposeOpsForInference()
    want = evaluate(decompose(before), *arrays)
    # The same sums, perhaps in another order.
    np.testing.assert_allclose(
        evaluate(decompose(after), *arrays), want, atol=1e-5 * np.abs(want).max()
    )
    return after


def test_permutations_between_layers_vanish(rng, weight):
    second = rng.standard_normal((K, K, 3, 3)).astype("float32")
    bias = np.arange(K, dtype="float32")

    def before(b, x):
        y = b.emit(relax.op.add(wrapped(b, x, weight), const(bias)))
        y = b.emit(relax.op.nn.relu(y))
        z = wrapped(b, y, second, "second")
        return b.emit(relax.op.multiply(z, y))

    def expected(b, x):
        y = conv(b, to_nchw(b, x), weight)
        y = b.emit(relax.op.add(y, const(bias.reshape(1, K, 1, 1))))
        y = b.emit(relax.op.nn.relu(y))
        z = conv(b, y, second, "second")
        return to_nhwc(b, b.emit(relax.op.multiply(z, y)))

    converted(module(before, SHAPE), module(expected, SHAPE))


@pytest.mark.parametrize("layout", ["HWIO", "OHWI", "OIHW"])
def test_layers_in_nhwc(weight, layout):
    """Names of variables stay; plans know layers by them."""

    def expected(b, x):
        return to_nhwc(b, b.emit(relax.op.nn.relu(conv(b, to_nchw(b, x), weight))))

    before = module(lambda b, x: b.emit(relax.op.nn.relu(nhwc(b, x, weight, layout))), SHAPE)
    converted(before, module(expected, SHAPE))
    block = ToNCHW()(before)["main"].body.blocks[0]
    assert "conv" in [binding.var.name for binding in block.bindings]


def test_what_is_between_layers(rng, weight):
    gamma, variance = np.arange(1, K + 1), np.arange(2, K + 2)

    def before(b, x):
        y = nhwc(b, x, weight, strides=(2, 1))
        operands = [const(v) for v in (gamma, gamma - 2, gamma / 3, variance)]
        norm = b.emit(relax.op.nn.batch_norm(y, *operands, axis=3, training=False))
        y = b.emit(relax.TupleGetItem(norm, 0))
        pooled = relax.op.nn.max_pool2d(y, (2, 2), padding=(1, 0, 0, 1), layout="NHWC")
        average = relax.op.nn.avg_pool2d(b.emit(pooled), (2, 1), layout="NHWC")
        y = b.emit(relax.op.nn.pad(b.emit(average), [0, 0, 1, 2, 3, 4, 0, 0]))
        y = b.emit(relax.op.concat([y, b.emit(relax.op.negative(y))], axis=3))
        y = b.emit(relax.op.subtract(const(1.0), y))
        mean = b.emit(relax.op.mean(y, [1, 2], keepdims=True))
        y = b.emit(relax.op.maximum(y, mean))
        y = b.emit(relax.op.nn.adaptive_avg_pool2d(y, (2, 3), "NHWC"))
        return b.emit(relax.op.sum(y, [1, 2]))

    after = same_function(module(before, SHAPE), rng, SHAPE)
    assert operators(after).count("relax.permute_dims") == 1  # of the input
    assert operators(after)[-1] == "relax.sum"


def test_what_does_not_commute_gets_its_operands_as_they_were(rng, weight):
    def before(b, x):
        y = wrapped(b, x, weight)
        soft = b.emit(relax.op.nn.softmax(y, -1))
        return b.emit(relax.op.add(soft, y))

    after = same_function(module(before, SHAPE), rng, SHAPE)
    assert operators(after)[:4] == [
        *("relax.permute_dims", "relax.nn.conv2d", "relax.permute_dims", "relax.nn.softmax")
    ]


def test_maps_of_both_kinds(rng, weight):
    def before(b, x, z):
        y = b.emit(relax.op.add(nhwc(b, x, weight), z))
        y = b.emit(relax.op.reshape(y, (2, -1)))
        return b.emit(relax.op.nn.relu(y))

    shape = (2, 6, 5, K)
    after = same_function(module(before, SHAPE, shape), rng, SHAPE, shape)
    assert operators(after).count("relax.permute_dims") == 3


@pytest.mark.parametrize(
    "axes", [[1], [3], [2, 1], [0, 3]], ids=lambda axes: "".join(map(str, axes))
)
def test_reductions_of_some_axes(rng, weight, axes):
    before = module(lambda b, x: b.emit(relax.op.sum(nhwc(b, x, weight), axes)), SHAPE)
    same_function(before, rng, SHAPE)


def test_networks_in_nchw_stay_as_they_are(weight):
    def build(b, x):
        y = b.emit(relax.op.permute_dims(conv(b, x, weight), [1, 0, 2, 3]))
        return b.emit(relax.op.nn.relu(y))

    before = module(build, (2, C, 6, 5))
    assert ToNCHW()(before)["main"].same_as(before["main"])


def test_weights_that_are_inputs_keep_their_layout():
    def build(b, x, w):
        call = relax.op.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="HWIO")
        return b.emit(call)

    before = module(build, SHAPE, (3, 3, C, K))
    tvm.ir.assert_structural_equal(ToNCHW()(before), before)


def test_compiled_layers_are_planned_in_nchw(rng, weight):
    """Each layer gets a kernel, whose constants are in NCHW."""
    second = rng.standard_normal((K, K, 3, 3)).astype("float32")
    before = module(lambda b, x: wrapped(b, nhwc(b, x, weight), second, "second"), SHAPE)
    exe = driver.compile(before, "llvm", num_threads=1)
    assert [(p.name, p.conv.c, p.conv.h) for p in exe.plan] == [("conv", C, 6), ("second", K, 6)]
    assert "left" not in {plan.algorithm for plan in exe.plan}
    x = rng.standard_normal(SHAPE).astype("float32")
    want = evaluate(before, x)
    assert np.abs(exe(x) - want).max() < 1e-4 * np.abs(want).max()  # Winograd's rounding
    assert exe(x).shape == (2, 6, 5, K)
