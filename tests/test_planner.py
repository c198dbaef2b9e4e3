"""What the planner picks for one convolution, and that it says why."""

import numpy as np
import pytest

from tvm_sparsewino import reference
from tvm_sparsewino.config import CompileConfig, ConvShape
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.planner import (
    plan_left,
    plan_spatial,
    plan_winograd,
    winograd_coefficients,
)
from tvm_sparsewino.schedules.target import parse_target

CPU = parse_target("llvm -mcpu=znver3")
SHAPE = ConvShape(1, 64, 56, 56, 64, 3, (1, 1, 1, 1))
CONFIG = CompileConfig()


def with_density(rng, density, shape=(36, 64, 64)):
    values = rng.standard_normal(shape).astype("float32")
    return np.where(rng.random(shape) < density, values, 0).astype("float32")


@pytest.mark.parametrize(
    ("density", "algorithm"), [(0.0, "sparse"), (0.05, "sparse"), (0.1, "sparse"), (1.0, "dense")]
)
def test_trained_coefficients_keep_their_tile(rng, density, algorithm):
    layer = plan_winograd("a", SHAPE, with_density(rng, density), 4, CPU, CONFIG)
    assert (layer.algorithm, layer.m) == (f"{algorithm}_winograd", 4)
    assert layer.conv == SHAPE
    assert abs(layer.density - density) < 0.01
    assert "trained as Winograd coefficients of F(4,3)" in layer.reason
    assert f"the {algorithm} kernel is predicted" in layer.reason
    assert layer.flops_direct == SHAPE.direct_flops > layer.flops_done > 0
    assert layer.cost_cycles > 0
    assert min(layer.panel_vectors, layer.k_block, layer.channel_block, layer.rows_at_once) >= 1


def test_fewer_nonzeros_cost_less(rng):
    costs = [
        plan_winograd("a", SHAPE, with_density(rng, d), 4, CPU, CONFIG).cost_cycles
        for d in (0.02, 0.1, 0.3, 0.6)
    ]
    assert costs == sorted(costs)


def test_spatial_weights_may_take_any_tile(rng):
    weight = with_density(rng, 1.0, (64, 64, 3, 3))
    chosen = plan_spatial("a", SHAPE, weight, CPU, CONFIG)
    forced = plan_spatial("a", SHAPE, weight, CPU, CompileConfig(max_tile=2))
    assert (chosen.m, forced.m) == (4, 2)
    assert chosen.cost_cycles < forced.cost_cycles
    assert "cheapest of the tiles 2, 4 for 100% dense weights" in chosen.reason
    assert "cheapest of the tiles 2 for" in forced.reason


def test_whole_filters_that_are_zero_stay_zero(rng):
    weight = with_density(rng, 1.0, (64, 64, 3, 3))
    weight[rng.random((64, 64)) < 0.95] = 0
    layer = plan_spatial("a", SHAPE, weight, CPU, CompileConfig(winograd_for_dense=False))
    assert layer.algorithm == "sparse_winograd"
    assert layer.density < 0.07


def test_dense_weights_may_stay_direct(rng):
    weight = with_density(rng, 1.0, (64, 64, 3, 3))
    layer = plan_spatial("a", SHAPE, weight, CPU, CompileConfig(winograd_for_dense=False))
    assert layer.algorithm == "left"
    assert "winograd_for_dense is off" in layer.reason
    assert layer.flops_done == layer.flops_direct == SHAPE.direct_flops


def test_the_panel_may_be_given(rng):
    config = CompileConfig(panel_vectors=3)
    assert plan_winograd("a", SHAPE, with_density(rng, 0.1), 4, CPU, config).panel_vectors == 3


def test_left_says_why():
    assert plan_left("a", "it is Tuesday").reason == "left as it is: it is Tuesday"


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (4, 5)])
def test_coefficients_are_the_transformed_filter(rng, m, r):
    weight = rng.standard_normal((3, 2, r, r)).astype("float32")
    got = winograd_coefficients(weight, m)
    assert got.dtype == np.float32
    want = reference.winograd_weight(weight, cook_toom(m, r))
    # Rounded once from float64; the order of the sums may differ in the last bits of that.
    np.testing.assert_allclose(got, want, rtol=2**-23, atol=1e-12)
