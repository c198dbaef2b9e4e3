"""Planning a module: names, reasons, refusals."""

import numpy as np
import pytest
import tvm
from relax_networks import const, conv, module, winograd
from tvm import relax

from tvm_sparsewino.config import CompileConfig
from tvm_sparsewino.errors import ShapeError, TargetError
from tvm_sparsewino.relay_passes import ops, plan
from tvm_sparsewino.relay_passes.bindings import Bindings
from tvm_sparsewino.relay_passes.operators import WINOGRAD
from tvm_sparsewino.relay_passes.patterns import LAYER_NAMES
from tvm_sparsewino.schedules.target import parse_target

SHAPE = (1, 4, 8, 8)


def weight(r=3, s=None, k=4, c=4):
    return np.ones((k, c, r, s or r), np.float32)


def the_plan(build, *shapes, config=None):
    (layer,) = plan(module(build, *(shapes or (SHAPE,))), "llvm", config)
    return layer


@pytest.mark.parametrize(
    ("reason", "build"),
    [
        (
            "its layout is NHWC",
            lambda b, x: conv(b, x, weight(c=8), data_layout="NHWC"),
        ),
        (
            "its layout is NCHW with HWIO weights",
            lambda b, x: conv(b, x, np.ones((3, 3, 4, 4)), kernel_layout="HWIO"),
        ),
        ("F(4,3) has points of its own", lambda b, x: b.emit(other_points(x))),
    ],
)
def test_what_no_kernel_takes_is_left_with_the_reason(reason, build):
    layer = the_plan(build)
    assert (layer.algorithm, layer.conv, layer.m) == ("left", None, 0)
    assert layer.reason.startswith("left as it is: ")
    assert reason in layer.reason


@pytest.mark.parametrize(
    ("reason", "build", "expected"),
    [
        ("its stride is 2x2", lambda b, x: conv(b, x, weight(), strides=2), {"stride": (2, 2)}),
        (
            "its dilation is 2x2",
            lambda b, x: conv(b, x, weight(), dilation=2),
            {"dilation": (2, 2)},
        ),
        ("its filter is 1x1", lambda b, x: conv(b, x, weight(1), padding=0), {"r": 1, "s": 1}),
        ("its filter is 3x5", lambda b, x: conv(b, x, weight(3, 5)), {"r": 3, "s": 5}),
        (
            "its stride is 2x1",
            lambda b, x: conv(b, x, weight(), strides=(2, 1)),
            {"stride": (2, 1)},
        ),
        ("its filter is 7x7", lambda b, x: conv(b, x, weight(7)), {"r": 7}),
        ("its padding (3, 3, 3, 3)", lambda b, x: conv(b, x, weight(), padding=3), {"r": 3}),
    ],
)
def test_what_winograd_cannot_take_runs_directly(reason, build, expected):
    layer = the_plan(build)
    assert layer.algorithm in ("dense_direct", "sparse_direct")
    assert {name: getattr(layer.conv, name) for name in expected} == expected
    assert f"no Winograd: {reason}" in layer.reason


def other_points(x):
    points = ("0", "1", "-1", "3", "-3", "inf")
    u = const(np.ones((36, 4, 4)))
    return ops.winograd_conv2d(x, u, m=4, r=3, points=points, padding=(1, 1, 1, 1))


def test_weights_and_biases_that_are_inputs_are_left():
    plain = the_plan(lambda b, x, w: b.emit(relax.op.nn.conv2d(x, w)), SHAPE, (4, 4, 3, 3))
    assert "its weights are not constant" in plain.reason
    attrs = {"m": 2, "r": 3, "points": ("0", "1", "-1", "inf"), "padding": (0, 0, 0, 0)}
    native = the_plan(lambda b, x, w: b.emit(ops.winograd_conv2d(x, w, **attrs)), SHAPE, (16, 4, 4))
    assert "its weights are not constant" in native.reason
    u = const(np.ones((16, 4, 4)))
    biased = the_plan(lambda b, x, v: b.emit(ops.winograd_conv2d(x, u, v, **attrs)), SHAPE, (4,))
    assert "its bias is not constant" in biased.reason


def test_a_plain_convolution_in_any_padding_form():
    layer = the_plan(lambda b, x: conv(b, x, weight(), padding=(0, 1)))
    assert layer.conv.padding == (0, 1, 0, 1)
    layer = the_plan(lambda b, x: conv(b, x, weight(5), padding=(1, 2, 3, 4)))
    assert (layer.conv.r, layer.conv.padding) == (5, (1, 2, 3, 4))
    layer = the_plan(lambda b, x: conv(b, x, weight(c=2, k=6), groups=2))
    assert (layer.conv.groups, layer.conv.k) == (2, 6)


def test_constants_behind_arithmetic_are_constants():
    """Layers keep weights as ``where(mask, q / scale, 0)``; importers may leave that in place."""
    rng = np.random.default_rng(0)
    q = rng.standard_normal((36, 4, 4)).astype("float32")
    mask = rng.random(q.shape) < 0.25

    def build(b, x):
        scaled = b.emit(relax.op.divide(const(q), const(np.full((36, 1, 1), 4.0))))
        masked = b.emit(relax.op.where(relax.const(mask), scaled, const(0.0)))
        points = ("0", "1", "-1", "2", "-2", "inf")
        return b.emit(ops.winograd_conv2d(x, masked, m=4, r=3, points=points, padding=(1, 1, 1, 1)))

    layer = the_plan(build)
    assert layer.density == mask.mean()
    bindings = Bindings(module(build, SHAPE)["main"])
    (call,) = [b.value for b in bindings.order if ops.is_call_to(b.value, WINOGRAD)]
    np.testing.assert_array_equal(bindings.constant(call.args[1]), np.where(mask, q / 4, 0))
    assert bindings.constant(call.args[0]) is None


def test_names_come_from_the_importer_and_stay_unique():
    mod = module(
        lambda b, x: conv(b, conv(b, conv(b, x, weight()), weight(), name="c"), weight()), SHAPE
    )
    variables = [b.var.name for block in mod["main"].body.blocks for b in block.bindings]
    names = {variables[0]: "model.0", variables[2]: "model.0"}
    mod["main"] = mod["main"].with_attr(LAYER_NAMES, names)
    assert [layer.name for layer in plan(mod, "llvm")] == ["model.0", "c", "model.0:2"]


def test_symbolic_shapes_name_the_layer():
    batch = tvm.tirx.Var("batch", "int64")
    mod = module(lambda b, x: conv(b, x, weight(1), name="head"), (batch, 4, 8, 8))
    with pytest.raises(ShapeError, match=r"layer 'head': data has the symbolic shape .*batch"):
        plan(mod, "llvm")


def test_targets_in_every_form():
    mod = module(lambda b, x: winograd(b, x, np.ones((36, 4, 4))), SHAPE)
    cpu = parse_target("llvm -mcpu=znver3")
    assert plan(mod, cpu) == plan(mod, "llvm -mcpu=znver3") == plan(mod, cpu.tvm_target())
    with pytest.raises(TargetError):
        plan(mod, "cuda")


def test_only_networks_are_planned():
    """Fused functions that another backend claimed are none of ours."""
    mod = module(lambda b, x: conv(b, x, weight()), SHAPE)
    mod["main"] = mod["main"].with_attr("Composite", "other.conv2d")
    assert plan(mod, "llvm") == ()


def test_min_channels_leaves_thin_layers():
    layer = the_plan(lambda b, x: conv(b, x, weight()), config=CompileConfig(min_channels=5))
    assert layer.algorithm == "left"
    assert "4 channels, below 5" in layer.reason
    assert layer.conv.c == 4
