"""What the pass takes into an operator, what it leaves and why, on networks written in Relay.

Every rewritten network is held against TVM's own kernels: Winograd against direct sums, so the
tolerance is 1e-4 of the output's maximum.
"""

import numpy as np
import pytest
import tvm
from relay_networks import HOST, array, close, const, module, operators, run, weight
from tvm import relay

from tvm_sparsewino.config import CompileConfig, ConvShape
from tvm_sparsewino.errors import ConfigError, ShapeError, WeightsError
from tvm_sparsewino.relay import sparsify
from tvm_sparsewino.relay_passes.relay import SparsifyConvs, ops, plan, prepare
from tvm_sparsewino.weights import LayerWeights, save_weights

TOLERANCE = 1e-4
SHAPE = (2, 6, 9, 13)


def conv(x, w, padding=1, **attrs):
    last = attrs.get("kernel_layout") == "HWIO"
    sizes = {"channels": w.shape[3 if last else 0], "kernel_size": (3, 3)}
    return relay.nn.conv2d(x, const(w), padding=(padding, padding), **sizes, **attrs)


def norm(rng, x, channels, axis=1):
    values = array(rng, channels), array(rng, channels), array(rng, channels)
    variance = const(rng.uniform(0.5, 2, channels))
    return relay.nn.batch_norm(x, *map(const, values), variance, axis=axis)[0]


def check(mod, names, shapes=(SHAPE,), seed=0, **options):
    """Rewrite, compare the operators' names (without the package's), and the outputs."""
    rng = np.random.default_rng(seed)
    inputs = {n: array(rng, *s) for n, s in zip("xyz", shapes, strict=False)}
    sparse, made = sparsify(mod, **options)
    assert [name.removeprefix("sparsewino.") for name in operators(sparse)] == names
    close(run(sparse, inputs), run(mod, inputs), TOLERANCE)
    return made


KERNEL = "sparse_conv2d"  # small and sparse: what the planner picks here
TAILS = {
    "nothing": lambda rng, c, y: c,
    "bias": lambda rng, c, y: relay.nn.bias_add(c, const(array(rng, 8))),
    "bias as add": lambda rng, c, y: relay.add(const(array(rng, 1, 8, 1, 1)), c),
    "relu": lambda rng, c, y: relay.nn.relu(c),
    "relu6": lambda rng, c, y: relay.clip(c, 0.0, 6.0),
    "leaky": lambda rng, c, y: relay.nn.leaky_relu(c, 0.25),
    "prelu": lambda rng, c, y: relay.nn.prelu(c, const(array(rng, 8))),
    "residual": lambda rng, c, y: relay.add(y, c),
    "norm": lambda rng, c, y: norm(rng, c, 8),
    "bias, norm": lambda rng, c, y: norm(rng, relay.nn.bias_add(c, const(array(rng, 8))), 8),
    "norm, residual, relu": lambda rng, c, y: relay.nn.relu(norm(rng, c, 8) + y),
}


@pytest.mark.parametrize("tail", TAILS)
def test_what_follows_is_taken_in(rng, tail):
    w = weight(rng, 8, 6, 3, 3, density=0.1)
    mod = module(lambda x, y: TAILS[tail](rng, conv(x, w), y), SHAPE, (2, 8, 9, 13))
    check(mod, [KERNEL], (SHAPE, (2, 8, 9, 13)))


def pool(kind, x, size=2, **attrs):
    return getattr(relay.nn, f"{kind}_pool2d")(x, (size, size), (2, 2), **attrs)


POOLS = {
    "max": (lambda rng, c, y: pool("max", c), []),
    "bias, relu, max": (lambda rng, c, y: pool("max", TAILS["relu"](rng, c, y)), []),
    "max, relu6": (lambda rng, c, y: TAILS["relu6"](rng, pool("max", c), y), []),
    "leaky, average": (lambda rng, c, y: pool("avg", TAILS["leaky"](rng, c, y)), []),
    "average, relu": (lambda rng, c, y: relay.nn.relu(pool("avg", c)), ["nn.relu"]),
    "3x3": (lambda rng, c, y: pool("max", c, 3), ["nn.max_pool2d"]),
    "padded": (lambda rng, c, y: pool("max", c, padding=(1, 1)), ["nn.max_pool2d"]),
    "partial": (lambda rng, c, y: pool("max", c, ceil_mode=True), ["nn.max_pool2d"]),
    "residual": (lambda rng, c, y: pool("max", c + y), ["nn.max_pool2d"]),
}


@pytest.mark.parametrize("tail", POOLS)
def test_pooling_behind_a_winograd_convolution_is_taken_in(rng, tail):
    u = const(array(rng, 16, 8, 6))
    options = {"m": 2, "r": 3, "points": ("0", "1", "-1", "inf"), "padding": (1, 1, 1, 1)}
    build, names = POOLS[tail]
    mod = module(
        lambda x, y: build(rng, ops.winograd_conv2d(x, u, **options), y), SHAPE, (2, 8, 9, 13)
    )
    (layer,) = check(mod, ["sparse_winograd_conv2d", *names], (SHAPE, (2, 8, 9, 13)))
    taken = "max" if "max" in tail else "average"
    assert layer.pool == ("none" if "nn.max_pool2d" in names else taken)


LEFT = {
    "another clip": (lambda rng, c, y: relay.clip(c, 0.0, 5.0), ["clip"]),
    "axis of a bias": (
        lambda rng, c, y: relay.nn.bias_add(c, const(array(rng, 13)), 3),
        ["nn.bias_add"],
    ),
    "broadcast residual": (lambda rng, c, y: c + const(array(rng, 9, 13)), ["add"]),
    "itself": (lambda rng, c, y: c + c, ["add"]),
    "used twice": (lambda rng, c, y: relay.nn.relu(c) * c, ["nn.relu", "multiply"]),
    "norm of another axis": (lambda rng, c, y: norm(rng, c, 13, axis=3), ["nn.batch_norm"]),
}


@pytest.mark.parametrize("tail", LEFT)
def test_what_no_kernel_does_stays(rng, tail):
    w = weight(rng, 8, 6, 3, 3, density=0.1)
    build, names = LEFT[tail]
    mod = module(lambda x, y: build(rng, conv(x, w), y), SHAPE, (2, 8, 9, 13))
    check(mod, [KERNEL, *names], (SHAPE, (2, 8, 9, 13)))


@pytest.mark.parametrize(
    "attrs",
    [
        {"strides": (2, 2)},
        {"strides": (2, 1), "dilation": (1, 2)},
        {"groups": 2},
        {"padding": 0},
        {"padding": 3},
    ],
    ids=str,
)
def test_every_convolution_has_a_kernel(rng, attrs):
    w = weight(rng, 8, 6 // attrs.get("groups", 1), 3, 3, density=0.1)
    (layer,) = check(module(lambda x: conv(x, w, **attrs), SHAPE), [KERNEL])
    assert layer.conv.groups == attrs.get("groups", 1)


def test_a_pad_before_a_convolution_is_its_padding(rng):
    w = weight(rng, 8, 6, 3, 3, density=0.1)
    around = ((0, 0), (0, 0), (0, 1), (1, 2))
    mod = module(lambda x: conv(relay.nn.pad(x, around), w, padding=0), SHAPE)
    (layer,) = check(mod, [KERNEL])
    assert layer.conv.padding == (0, 1, 1, 2)


def test_nhwc(rng):
    """Two layers, a residual and pooling: the layout is changed at the borders only."""
    first, second = (weight(rng, 3, 3, c, 8, density=0.1) for c in (6, 8))
    options = {"data_layout": "NHWC", "kernel_layout": "HWIO"}

    def build(x):
        y = relay.nn.relu(norm(rng, conv(x, first, **options), 8, axis=3))
        y = relay.nn.relu(conv(y, second, **options) + y)
        return relay.nn.max_pool2d(y, (2, 2), (2, 2), layout="NHWC")

    mod = module(build, (2, 9, 13, 6))
    names = ["layout_transform", KERNEL, KERNEL, "nn.max_pool2d", "layout_transform"]
    check(mod, names, ((2, 9, 13, 6),))


def test_two_convolutions_and_a_residual_between_them(rng):
    first, second = weight(rng, 6, 6, 3, 3, density=0.1), weight(rng, 6, 6, 3, 3, density=0.1)
    mod = module(lambda x: relay.nn.relu(conv(relay.nn.relu(conv(x, first)), second) + x), SHAPE)
    check(mod, [KERNEL, KERNEL])


def test_control_flow_stays(rng):
    w = weight(rng, 6, 6, 3, 3, density=0.1)

    def build(x):
        positive = relay.op.greater(relay.sum(x), relay.const(0.0))
        return relay.nn.relu(relay.If(positive, relay.nn.relu(conv(x, w)), x))

    mod = module(build, SHAPE)
    sparse, _ = sparsify(mod)
    assert "sparsewino.sparse_conv2d" in operators(sparse)
    x = array(rng, *SHAPE)
    outputs = []
    for each in (mod, sparse):
        executable = relay.vm.compile(each, HOST.tvm_target())
        outputs.append(tvm.runtime.vm.VirtualMachine(executable, tvm.cpu()).run(x).numpy())
    close(outputs[1], outputs[0], TOLERANCE)


def test_layers_are_called_after_their_parameters(rng):
    x, w = relay.var("x", shape=SHAPE), relay.var("body.0.weight", shape=(8, 6, 3, 3))
    params = {"body.0.weight": weight(rng, 8, 6, 3, 3)}
    function = relay.Function([x, w], relay.nn.conv2d(x, w))
    mod = tvm.IRModule.from_expr(function)
    assert [layer.name for layer in sparsify(mod, params)[1]] == ["body.0"]
    left = sparsify(mod)[1][0]
    assert (left.name, left.algorithm) == ("body.0", "left")
    assert "its weights are not constant" in left.reason


def test_one_weight_in_two_layers(rng):
    w = const(weight(rng, 6, 6, 3, 3, density=0.1))
    options = {"padding": (1, 1), "channels": 6, "kernel_size": (3, 3)}

    def build(x):
        return relay.nn.conv2d(relay.nn.conv2d(x, w, **options), w, **options)

    made = check(module(build, SHAPE), [KERNEL, KERNEL])
    assert len({layer.name for layer in made}) == 2


def test_other_kinds_are_left_with_a_reason(rng):
    w = weight(rng, 8, 6, 3, 3, density=0.8)
    mod = module(lambda x: conv(x, w), SHAPE)
    (layer,) = check(mod, ["nn.conv2d"], min_sparsity=0.5)
    assert "of its weights are zero, less than 50%" in layer.reason
    (layer,) = check(mod, ["nn.conv2d"], config=CompileConfig(min_channels=7))
    assert layer.algorithm == "left"


def test_a_symbolic_shape_is_an_error(rng):
    w = weight(rng, 8, 6, 3, 3)
    mod = module(lambda x: conv(x, w), (relay.Any(), *SHAPE[1:]))
    with pytest.raises(ShapeError, match=r"layer .*must be a known number"):
        sparsify(mod)


def test_min_sparsity_is_a_share(rng):
    mod = module(lambda x: conv(x, weight(rng, 8, 6, 3, 3)), SHAPE)
    with pytest.raises(ConfigError, match="min_sparsity must be in"):
        plan(prepare(mod), "native", min_sparsity=1.5)


@pytest.fixture
def planned(rng):
    mod = prepare(module(lambda x: conv(x, weight(rng, 8, 6, 3, 3, density=0.1)), SHAPE))
    return mod, plan(mod, "native")


def test_a_plan_for_another_layer_is_refused(planned):
    import dataclasses

    mod, (layer,) = planned
    other = ConvShape(1, 6, 9, 13, 8, 3, (1, 1, 1, 1))
    changed = [dataclasses.replace(layer, conv=other)]
    with pytest.raises(Exception, match="the plan was made for"):
        SparsifyConvs(changed)(mod)
    pooled = dataclasses.replace(layer, pool="max")
    with pytest.raises(Exception, match="the plan's pool is 'max', the layer's 'none'"):
        SparsifyConvs([pooled])(mod)
    with pytest.raises(ConfigError, match="names a layer twice"):
        SparsifyConvs([layer, layer])


def test_operands_that_do_not_fit(rng):
    options = {"m": 2, "r": 3, "points": ("0", "1", "-1", "inf"), "padding": (1, 1, 1, 1)}
    bad = {
        "needs weights": (SHAPE, (15, 8, 6), 1),
        "do not fit 4 groups": (SHAPE, (16, 8, 2), 4),
    }
    for message, (data, u, groups) in bad.items():
        call = ops.winograd_conv2d(
            relay.var("x", shape=data), const(array(rng, *u)), groups=groups, **options
        )
        with pytest.raises(Exception, match=message):
            relay.transform.InferType()(tvm.IRModule.from_expr(call))


def test_weights_that_do_not_fit(rng, tmp_path):
    path = tmp_path / "weights.safetensors"
    mod = module(lambda x: conv(x, weight(rng, 8, 6, 3, 3)), SHAPE)
    name = plan(prepare(mod), "native")[0].name
    absent = LayerWeights.winograd("absent", 2, 3, array(rng, 16, 8, 6))
    wrong = {
        "has no convolutions for the layers": absent,
        "not \\(3, 3, 8, 5\\)": LayerWeights.winograd(name, 2, 3, array(rng, 16, 8, 5)),
        "its weights are": LayerWeights.dense(name, array(rng, 8, 6, 1, 1)),
    }
    for message, layer in wrong.items():
        save_weights(path, [layer])
        with pytest.raises(WeightsError, match=f"weights.safetensors: .*{message}"):
            sparsify(mod, weights=path)
    strided = module(lambda x: conv(x, weight(rng, 8, 6, 3, 3), strides=(2, 2)), SHAPE)
    save_weights(path, [LayerWeights.winograd(name, 2, 3, array(rng, 16, 8, 6))])
    with pytest.raises(WeightsError, match="stride and dilation 1"):
        sparsify(strided, weights=path)
