"""SparsifyConvs: before and expected modules, what is taken into the epilogue and what is not."""

import dataclasses

import numpy as np
import pytest
import tvm
from relax_networks import const, conv, evaluate, module, operators, per_channel, winograd
from tvm import relax

from tvm_sparsewino import reference
from tvm_sparsewino.config import CompileConfig, Epilogue
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.packing import pack
from tvm_sparsewino.planner import plan_of, spatial_options, winograd_coefficients
from tvm_sparsewino.relay_passes import SparsifyConvs, ops, plan, sparsewino_pipeline
from tvm_sparsewino.relay_passes.operators import SPARSE, packed_plan
from tvm_sparsewino.schedules.target import parse_target

TARGET = "llvm"
CPU = parse_target(TARGET)
C, K = 4, 4  # alike, so that residuals fit
SHAPE = (1, C, 6, 7)
BIAS, SLOPE = np.array([1.0, -2.0, 3.0, 0.5]), np.array([0.1, 0.2, 0.3, -0.4])
RELU = relax.op.nn.relu


@pytest.fixture
def u(rng):
    """Coefficients of F(4,3), 80 % zeros."""
    values = rng.standard_normal((36, K, C)).astype("float32")
    return np.where(rng.random(values.shape) < 0.8, 0, values).astype("float32")


def sparsify(mod, config=None):
    plans = plan(mod, TARGET, config)
    after = SparsifyConvs(plans, TARGET)(mod)
    relax.analysis.well_formed(after)
    return after, plans


def sparse(builder, x, u, layer, epilogue, *operands):
    """What a convolution with coefficients ``u`` becomes."""
    packed = pack(u, layer, CPU.lanes).arrays
    call = ops.packed_conv2d(
        x,
        [relax.const(array) for array in packed],
        operands,
        plan=layer,
        epilogue=epilogue,
        lanes=CPU.lanes,
        vector_registers=CPU.vector_registers,
    )
    return builder.emit(call)


def added(b, x, y):
    return b.emit(relax.op.add(x, y))


def torch_prelu(b, x):
    """``prelu`` as PyTorch's importer writes it."""
    slope = b.emit(relax.op.reshape(const(SLOPE), (1, K, 1, 1)))
    positive = b.emit(relax.op.greater(x, relax.const(0.0, "float32")))
    product = b.emit(relax.op.multiply(slope, x))
    return b.emit(relax.op.where(positive, x, product))


# What follows the convolution -> the epilogue, and its operands before the residual.
CHAINS = {
    "nothing": (lambda b, y, x: y, Epilogue(), ()),
    "bias": (lambda b, y, x: added(b, y, per_channel(BIAS)), Epilogue(bias=True), (BIAS,)),
    "bias first": (lambda b, y, x: added(b, per_channel(BIAS), y), Epilogue(bias=True), (BIAS,)),
    "scalar": (
        lambda b, y, x: added(b, y, const(2.0)),
        Epilogue(bias=True),
        (np.full(K, 2.0),),
    ),
    "residual": (lambda b, y, x: added(b, x, y), Epilogue(residual=True), ()),
    "relu": (lambda b, y, x: b.emit(RELU(y)), Epilogue(activation="relu"), ()),
    "relu6": (
        lambda b, y, x: b.emit(relax.op.clip(y, 0, 6)),
        Epilogue(activation="relu6"),
        (),
    ),
    "relu6 by name": (
        lambda b, y, x: b.emit(relax.op.nn.relu6(y)),
        Epilogue(activation="relu6"),
        (),
    ),
    "leaky": (
        lambda b, y, x: b.emit(relax.op.nn.leakyrelu(y, 0.125)),
        Epilogue(activation="leaky_relu", slope=0.125),
        (),
    ),
    "prelu": (
        lambda b, y, x: b.emit(relax.op.nn.prelu(y, const(SLOPE), axis=1)),
        Epilogue(activation="prelu"),
        (SLOPE,),
    ),
    "torch prelu": (lambda b, y, x: torch_prelu(b, y), Epilogue(activation="prelu"), (SLOPE,)),
    "all": (
        lambda b, y, x: b.emit(RELU(added(b, added(b, y, per_channel(BIAS)), x))),
        Epilogue(bias=True, residual=True, activation="relu"),
        (BIAS,),
    ),
    "all with prelu": (
        lambda b, y, x: torch_prelu(b, added(b, added(b, y, per_channel(BIAS)), x)),
        Epilogue(bias=True, residual=True, activation="prelu"),
        (BIAS, SLOPE),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_follows_moves_into_the_operator(u, name):
    follow, epilogue, operands = CHAINS[name]
    before = module(lambda b, x: follow(b, winograd(b, x, u), x), SHAPE)
    after, (layer,) = sparsify(before)

    def expected(b, x):
        residual = [x] if epilogue.residual else []
        return sparse(b, x, u, layer, epilogue, *map(const, operands), *residual)

    tvm.ir.assert_structural_equal(after, module(expected, SHAPE))


def test_a_bias_of_the_operator_itself(u):
    before = module(lambda b, x: b.emit(RELU(winograd(b, x, u, bias=BIAS))), SHAPE)
    after, (layer,) = sparsify(before)
    epilogue = Epilogue(bias=True, activation="relu")
    expected = module(lambda b, x: sparse(b, x, u, layer, epilogue, const(BIAS)), SHAPE)
    tvm.ir.assert_structural_equal(after, expected)


@pytest.mark.parametrize("algorithm", ["sparse_winograd", "dense_winograd", "dense_direct"])
def test_a_plain_convolution(rng, algorithm):
    weight = rng.standard_normal((K, C, 3, 3)).astype("float32")
    before = module(lambda b, x: b.emit(RELU(conv(b, x, weight))), SHAPE)
    (planned,) = plan(before, TARGET)
    options = spatial_options(planned.conv, weight, CPU, CompileConfig())
    option = next(o for o in options if o.algorithm == algorithm)
    layer = plan_of(planned.name, planned.conv, option)
    after = SparsifyConvs([layer], TARGET)(before)
    weights = winograd_coefficients(weight, layer.m) if layer.m else weight
    epilogue = Epilogue(activation="relu")
    expected = module(lambda b, x: sparse(b, x, weights, layer, epilogue), SHAPE)
    tvm.ir.assert_structural_equal(after, expected)


# ---- what must stay outside --------------------------------------------------------------------


def used_twice(b, y, x):
    return added(b, b.emit(RELU(y)), y)


def prelu_used_twice(b, y, x):
    return added(b, torch_prelu(b, y), y)


@pytest.mark.parametrize(
    ("follow", "left"),
    [
        (used_twice, ["relax.nn.relu", "relax.add"]),
        (lambda b, y, x: b.emit(relax.op.clip(y, 0, 5)), ["relax.clip"]),
        (lambda b, y, x: b.emit(relax.op.clip(y, -1, 6)), ["relax.clip"]),
        (lambda b, y, x: added(b, y, y), ["relax.add"]),
        (lambda b, y, x: added(b, y, const(np.zeros((1, 1, 6, 7)))), ["relax.add"]),
        (lambda b, y, x: b.emit(relax.op.nn.gelu(y)), ["relax.nn.gelu"]),
        # An activation ends the chain: what is added after it stays outside.
        (lambda b, y, x: added(b, b.emit(RELU(y)), x), ["relax.add"]),
        (prelu_used_twice, ["relax.greater", "relax.multiply", "relax.where", "relax.add"]),
    ],
)
def test_what_is_no_epilogue_stays(u, follow, left):
    before = module(lambda b, x: follow(b, winograd(b, x, u), x), SHAPE)
    after, _ = sparsify(before)
    assert [name for name in operators(after) if name != "relax.reshape"] == [SPARSE, *left]


def test_a_residual_of_another_shape_stays(u):
    def build(b, x, row):
        return added(b, winograd(b, x, u), row)

    after, _ = sparsify(module(build, SHAPE, (1, K, 1, 7)))
    assert operators(after) == [SPARSE, "relax.add"]


def test_two_convolutions_that_meet_share_one_sum(u):
    """The first takes the sum with the second as its residual; the second ends before it."""

    def build(b, x):
        first, second = (winograd(b, x, u, name=name) for name in ("first", "second"))
        return b.emit(RELU(added(b, first, second)))

    after, plans = sparsify(module(build, SHAPE))
    assert operators(after) == [SPARSE, SPARSE]
    calls = [b.value for block in after["main"].body.blocks for b in block.bindings][:2]
    epilogues = [packed_plan(call.attrs)[1] for call in calls]
    assert epilogues == [Epilogue(), Epilogue(residual=True, activation="relu")]
    assert [layer.name for layer in plans] == ["first", "second"]


# ---- plans -------------------------------------------------------------------------------------


def test_a_layer_that_is_left_or_not_planned_stays(u):
    before = module(lambda b, x: b.emit(RELU(winograd(b, x, u))), SHAPE)
    (layer,) = plan(before, TARGET)
    left = dataclasses.replace(layer, algorithm="left")
    for plans in ((), (left,)):
        tvm.ir.assert_structural_equal(SparsifyConvs(plans, TARGET)(before), before)


def test_plans_that_do_not_fit_are_refused(u, rng):
    before = module(lambda b, x: winograd(b, x, u), SHAPE)
    (layer,) = plan(before, TARGET)
    with pytest.raises(ConfigError, match="the plan names a layer twice"):
        SparsifyConvs((layer, layer))
    wide = dataclasses.replace(layer.conv, w=9)
    for text, other in (
        ("layer 'conv': the plan was made for .*w=9", dataclasses.replace(layer, conv=wide)),
        ("layer 'conv': the plan says m = 2, the weights are", dataclasses.replace(layer, m=2)),
    ):
        with pytest.raises(ConfigError, match=text):
            SparsifyConvs((other,), TARGET)(before)
    weight = rng.standard_normal((K, C, 1, 1)).astype("float32")
    pointwise = module(lambda b, x: conv(b, x, weight, padding=0), SHAPE)
    with pytest.raises(
        ConfigError, match=r"layer 'conv': the plan was made for .* r=3.* is .* r=1"
    ):
        SparsifyConvs((layer,), TARGET)(pointwise)
    weight = np.zeros((3, 3, C, K), "float32")
    other = module(lambda b, x: conv(b, x, weight, kernel_layout="HWIO"), SHAPE)
    with pytest.raises(ConfigError, match=r"layer 'conv': the plan says .*, but its layout is"):
        SparsifyConvs((layer,), TARGET)(other)


def test_the_target_in_force_is_used(u):
    before = module(lambda b, x: winograd(b, x, u), SHAPE)
    plans = plan(before, "llvm -mcpu=skylake-avx512")
    with parse_target("llvm -mcpu=skylake-avx512").tvm_target():
        after = SparsifyConvs(plans)(before)
    call = after["main"].body.blocks[0].bindings[0].value
    lanes = plans[0].lanes_on(16)
    assert (int(call.attrs["lanes"]), int(call.attrs["vector_registers"])) == (lanes, 32)


# ---- numbers -----------------------------------------------------------------------------------


def test_epilogue_operands_arrive_where_they_belong(rng, u):
    """Bias, residual and slope all differ, so that a swap would show."""
    follow = CHAINS["all with prelu"][0]
    before = module(lambda b, x: follow(b, winograd(b, x, u, padding=(1, 1, 1, 1)), x), SHAPE)
    x = rng.standard_normal(SHAPE).astype("float32")
    want = reference.winograd_conv2d(x, u, cook_toom(4, 3), BIAS, (1, 1, 1, 1)) + x
    want = np.where(want > 0, want, SLOPE[:, None, None] * want)
    got = evaluate(before, x, pipeline=sparsewino_pipeline())
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_direct_weights_without_winograd(rng):
    """winograd_for_dense=False leaves a dense layer, and TVM's own code computes it."""
    weight = rng.standard_normal((K, C, 3, 3)).astype("float32")
    before = module(lambda b, x: b.emit(RELU(conv(b, x, weight))), SHAPE)
    config = CompileConfig(winograd_for_dense=False)
    x = rng.standard_normal(SHAPE).astype("float32")
    want = np.maximum(reference.conv2d(x, weight, padding=(1, 1, 1, 1)), 0)
    for pipeline in (sparsewino_pipeline(config), sparsewino_pipeline()):
        got = evaluate(before, x, pipeline=pipeline)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
