"""Networks of convolutions with plain zeros, the whole way from a module to its output."""

import numpy as np
import pytest
from relax_networks import conv, module, operators, per_channel
from tvm import relax

from tvm_sparsewino import driver, reference
from tvm_sparsewino.config import CompileConfig
from tvm_sparsewino.relay_passes import SparsifyConvs, plan

F32 = 1e-5  # of the output's maximum: float32 sums of some hundred terms
ZEROS = 0.95
# Cores that have the measured machine's instructions choose alike everywhere.
TARGET = "llvm -mcpu=znver3"


def pruned(rng, *shape):
    weight = rng.standard_normal(shape).astype("float32")
    return np.where(rng.random(shape) < ZEROS, 0, weight).astype("float32")


@pytest.fixture
def network(rng):
    """A stem with a large filter, a pointwise layer, a strided one with bias and a residual sum."""
    weights = [pruned(rng, *s) for s in ((24, 3, 7, 7), (64, 24, 1, 1), (64, 32, 3, 3))]
    bias = rng.standard_normal(64).astype("float32")

    def build(b, x, other):
        x = b.emit(relax.op.nn.relu(conv(b, x, weights[0], 3, "stem", strides=2)))
        x = conv(b, x, weights[1], 0, "point")
        x = conv(b, x, weights[2], 1, "down", strides=2, groups=2)
        x = b.emit(relax.op.add(x, per_channel(bias)))
        return b.emit(relax.op.nn.relu(b.emit(relax.op.add(x, other))))

    x = rng.standard_normal((2, 3, 44, 47)).astype("float32")
    y = np.maximum(reference.conv2d(x, weights[0], None, (3,) * 4, (2, 2)), 0)
    y = reference.conv2d(y, weights[1])
    y = reference.conv2d(y, weights[2], bias, (1,) * 4, (2, 2), groups=2)
    other = rng.standard_normal(y.shape).astype("float32")
    return module(build, x.shape, y.shape), (x, other), np.maximum(y + other, 0)


def test_compiled_saved_and_loaded(network, tmp_path):
    mod, inputs, want = network
    exe = driver.compile(mod)
    assert [p.name for p in exe.plan] == ["stem", "point", "down"]
    assert {p.algorithm for p in exe.plan} == {"sparse_direct"}
    assert all(p.density < 0.1 and "sparse direct is predicted" in p.reason for p in exe.plan)
    exe.save(tmp_path / "model.so")
    for runnable in (exe, driver.load(tmp_path / "model.so")):
        assert np.abs(runnable(*inputs) - want).max() <= F32 * np.abs(want).max()
        assert runnable.plan == exe.plan


def test_the_operator_takes_what_follows(network):
    mod, _, _ = network
    rewritten = SparsifyConvs(plan(mod, TARGET), TARGET)(mod)
    assert operators(rewritten) == ["sparsewino.sparse_conv2d"] * 3


@pytest.mark.parametrize(("zeros", "algorithm"), [(0.97, "sparse_direct"), (0, "dense_winograd")])
def test_zeros_of_a_3x3_filter_decide(rng, zeros, algorithm):
    weight = rng.standard_normal((64, 64, 3, 3)).astype("float32")
    weight[rng.random(weight.shape) < zeros] = 0
    mod = module(lambda b, x: conv(b, x, weight), (1, 64, 56, 56))
    (layer,) = plan(mod, TARGET, CompileConfig())
    assert layer.algorithm == algorithm
    assert "dense direct" in layer.reason and "F(4)" in layer.reason


def test_weights_without_zeros_stay_dense(rng):
    weight = rng.standard_normal((128, 64, 1, 1)).astype("float32")
    mod = module(lambda b, x: conv(b, x, weight, 0), (1, 64, 56, 56))
    (layer,) = plan(mod, TARGET)
    assert layer.algorithm == "dense_direct"
