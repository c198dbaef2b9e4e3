"""Plain convolutions as direct ones, the whole way from a network to its output."""

import numpy as np
import pytest
from relax_networks import const, conv, module, operators, per_channel, winograd
from tvm import relax

from tvm_sparsewino import driver, reference
from tvm_sparsewino.config import CompileConfig
from tvm_sparsewino.errors import ConfigError, ShapeError
from tvm_sparsewino.relay_passes import SparsifyConvs, ops, plan
from tvm_sparsewino.relay_passes.operators import DIRECT

DIRECT_ONLY = CompileConfig(winograd_for_dense=False)
AVX2 = "llvm -mcpu=x86-64-v3"  # of few channels, others may run all weights as sparse ones
F32 = 1e-5  # of the output's maximum: float32 sums of some hundred terms


def network(weight, bias, groups=1, padding=(1, 1, 1, 1)):
    """Convolution, bias, residual sum, ReLU."""

    def build(b, x, other):
        y = conv(b, x, weight, padding, "layer", groups=groups)
        y = b.emit(relax.op.add(b.emit(relax.op.add(y, per_channel(bias))), other))
        return b.emit(relax.op.nn.relu(y))

    return build


@pytest.mark.parametrize(
    ("shape", "k", "r", "groups", "padding"),
    [
        ((2, 6, 9, 11), 8, 3, 2, (1, 1, 1, 1)),
        ((1, 5, 7, 16), 7, 3, 1, (2, 0, 1, 2)),
        ((1, 6, 8, 8), 6, 3, 6, (1, 1, 1, 1)),
        ((1, 4, 9, 9), 5, 5, 1, (2, 2, 2, 2)),
    ],
)
def test_compiled_saved_and_loaded(rng, tmp_path, shape, k, r, groups, padding):
    weight = rng.standard_normal((k, shape[1] // groups, r, r)).astype("float32")
    bias = rng.standard_normal(k).astype("float32")
    x = rng.standard_normal(shape).astype("float32")
    want = reference.conv2d(x, weight, bias, padding, groups=groups)
    other = rng.standard_normal(want.shape).astype("float32")
    mod = module(network(weight, bias, groups, padding), shape, want.shape)
    exe = driver.compile(mod, AVX2, config=DIRECT_ONLY)
    assert [(p.name, p.algorithm, p.m) for p in exe.plan] == [("layer", "dense_direct", 0)]
    exe.save(tmp_path / "model.so")
    want = np.maximum(want + other, 0)
    for runnable in (exe, driver.load(tmp_path / "model.so")):
        assert np.abs(runnable(x, other) - want).max() <= F32 * np.abs(want).max()
        assert runnable.plan == exe.plan


@pytest.fixture
def layer(rng):
    """The module of one convolution, and its plan as a direct one."""
    weight, bias = rng.standard_normal((4, 4, 3, 3)), rng.standard_normal(4)
    mod = module(network(weight.astype("float32"), bias), (1, 4, 8, 8), (1, 4, 8, 8))
    return mod, plan(mod, "llvm", DIRECT_ONLY)


def test_the_operator_takes_what_follows(layer):
    mod, plans = layer
    after = SparsifyConvs(plans, "llvm")(mod)
    relax.analysis.well_formed(after)
    assert operators(after) == [DIRECT]


def test_its_operands_are_checked(layer):
    mod, plans = layer
    bindings = SparsifyConvs(plans, "llvm")(mod)["main"].body.blocks[0].bindings
    call = next(b.value for b in bindings if ops.is_call_to(b.value, DIRECT))
    *operands, _ = call.args
    short = relax.Call(call.op, operands, call.attrs)
    with pytest.raises(ShapeError, match=r"'layer': takes the operands .*'residual'"):
        ops.infer_packed_conv2d(short, None)
    narrow = const(np.zeros((1, 4, 8, 7)))
    wrong = relax.Call(call.op, [*operands, narrow], call.attrs)
    with pytest.raises(ShapeError, match=r"residual must be \(1, 4, 8, 8\), got \(1, 4, 8, 7\)"):
        ops.infer_packed_conv2d(wrong, None)


def test_winograd_weights_never_run_directly(rng, layer):
    """Neither planned nor, with the plan of another layer of the same shape, rewritten."""
    u = rng.standard_normal((36, 4, 4)).astype("float32")
    mod = module(lambda b, x: winograd(b, x, u, name="layer"), (1, 4, 8, 8))
    assert plan(mod, "llvm", DIRECT_ONLY)[0].m == 4
    with pytest.raises(ConfigError, match="the plan says m = 0, the weights are made for m = 4"):
        SparsifyConvs(layer[1], "llvm")(mod)
