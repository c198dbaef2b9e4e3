"""What the planner picks for one convolution, and that it says why."""

import dataclasses
import re

import numpy as np
import pytest

from tvm_sparsewino import planner, reference
from tvm_sparsewino.config import CompileConfig, ConvShape
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.cost import Core
from tvm_sparsewino.cost_direct import predict_direct
from tvm_sparsewino.geometry import make_panels
from tvm_sparsewino.planner import (
    kernel_weight,
    plan_left,
    plan_spatial,
    plan_winograd,
    weights_key,
    winograd_coefficients,
)
from tvm_sparsewino.records import Record, Records, tuned_fields
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
    assert f"{algorithm} F(4) is predicted at" in layer.reason
    assert f"{layer.cost_cycles / 1e6:.3g} Mcycles" in layer.reason
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
    assert "100% dense weights; dense F(4) is predicted at" in chosen.reason
    assert "dense F(2) " in chosen.reason and "dense direct " in chosen.reason
    assert "F(4)" not in forced.reason


def test_whole_filters_that_are_zero_stay_zero(rng):
    weight = with_density(rng, 1.0, (64, 64, 3, 3))
    weight[rng.random((64, 64)) < 0.95] = 0
    layer = plan_spatial("a", SHAPE, weight, CPU, CompileConfig(winograd_for_dense=False))
    assert layer.algorithm == "sparse_winograd"
    assert layer.density < 0.07


def test_dense_weights_may_stay_direct(rng):
    weight = with_density(rng, 1.0, (64, 64, 3, 3))
    layer = plan_spatial("a", SHAPE, weight, CPU, CompileConfig(winograd_for_dense=False))
    assert (layer.algorithm, layer.m) == ("dense_direct", 0)
    assert "winograd_for_dense is off; dense direct is predicted at" in layer.reason
    assert layer.flops_done == layer.flops_direct == SHAPE.direct_flops


def test_direct_is_taken_where_it_is_predicted_best(rng, monkeypatch):
    weight = with_density(rng, 1.0, (64, 64, 3, 3))
    cheap = predict_direct(SHAPE, Core())
    cheap = dataclasses.replace(cheap, input_cycles=1.0, gemm_cycles=1.0, output_cycles=1.0)
    monkeypatch.setattr(planner, "predict_direct", lambda shape, core: cheap)
    layer = plan_spatial("a", SHAPE, weight, CPU, CONFIG)
    assert (layer.algorithm, layer.m, layer.cost_cycles) == ("dense_direct", 0, 3.0)


def test_few_channels_are_left(rng):
    weight = with_density(rng, 1.0, (64, 64, 3, 3))
    layer = plan_spatial("a", SHAPE, weight, CPU, CompileConfig(min_channels=65))
    assert layer.reason == "left as it is: 64 channels, below 65"


def test_a_structure_of_zeros_is_made_use_of(rng):
    u = with_density(rng, 0.1, (36, 16, 64)).repeat(4, axis=1)
    layer = plan_winograd("a", SHAPE, u, 4, CPU, CONFIG)
    assert (layer.structure, layer.rows_at_once) == ("rows4", 4)
    assert "sparse F(4) rows4 is predicted at" in layer.reason
    assert re.search(r"sparse F\(4\) [12]\.", layer.reason)


def test_threads_decide_the_blocking_but_neither_algorithm_nor_tile(rng):
    weight = with_density(rng, 1.0, (512, 512, 3, 3))
    shape = ConvShape(1, 512, 7, 7, 512, 3, (1, 1, 1, 1))
    one, two = (plan_spatial("a", shape, weight, CPU, CONFIG, threads) for threads in (1, 2))
    assert (one.algorithm, one.m) == (two.algorithm, two.m)
    assert make_panels(shape, one.m, CPU.lanes, one.panel_vectors).count == 1
    panels = make_panels(shape, two.m, CPU.lanes, two.panel_vectors).count
    assert panels > 1 or two.split_k
    assert not one.split_k
    assert two.cost_cycles < one.cost_cycles


def recorded(rng, config=CONFIG, threads=1, **fields):
    """The layer planned with a record of it; fields of its plan may be given."""
    u = with_density(rng, 0.1)
    plan = plan_winograd("a", SHAPE, u, 4, CPU, config)
    key = weights_key(SHAPE, u, 4, CPU, 1)
    tuned = {**tuned_fields(plan), **fields}
    records = Records([Record(key, "k", tuned, 2e-3, 2.1e-3, 3e-3, 12)], "k")
    return plan, plan_winograd("a", SHAPE, u, 4, CPU, config, threads, records)


def test_what_was_measured_fastest_is_taken(rng):
    model, layer = recorded(rng, panel_vectors=3, k_block=16)
    assert (layer.panel_vectors, layer.k_block, layer.rows_at_once) == (3, 16, model.rows_at_once)
    assert layer.reason == (
        "trained as Winograd coefficients of F(4,3); sparse F(4) measured 2 ms, the fastest of 12 "
        "plans, 1.50x as fast as what the model picks"
    )
    assert (layer.name, layer.algorithm, layer.m) == ("a", "sparse_winograd", 4)
    assert layer.flops_done > 0


def test_records_that_do_not_hold_are_ignored_with_a_note(rng):
    model, layer = recorded(rng, threads=2, panel_vectors=3)
    assert layer.reason.endswith("; a record for 1 threads is ignored")
    model, layer = recorded(rng, m=6)
    assert layer.panel_vectors == model.panel_vectors
    assert layer.reason == (
        f"{model.reason}; sparse_winograd with m = 6 was measured fastest, but is not allowed"
    )
    u = with_density(rng, 0.5)
    assert plan_winograd("a", SHAPE, u, 4, CPU, CONFIG, 1, Records()) == plan_winograd(
        "a", SHAPE, u, 4, CPU, CONFIG
    )


def test_kernels_get_the_weights_that_they_read(rng):
    weight = with_density(rng, 1.0, (64, 64, 3, 3))
    winograd = plan_spatial("a", SHAPE, weight, CPU, CompileConfig(max_tile=2))
    direct = plan_spatial("a", SHAPE, weight, CPU, CompileConfig(winograd_for_dense=False))
    assert np.array_equal(kernel_weight(weight, 0, winograd), winograd_coefficients(weight, 2))
    assert np.array_equal(kernel_weight(weight, 0, direct), weight)
    u = winograd_coefficients(weight, 2)
    assert np.array_equal(kernel_weight(u, 2, winograd), u)


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


def test_the_sparse_direct_kernel_must_be_clearly_ahead():
    shape = ConvShape(1, 256, 56, 56, 64, 1)
    chosen = {}
    for share in np.linspace(0.1, 1.0, 19):
        weight = np.zeros(64 * 256, np.float32)
        weight[: round(share * weight.size)] = 1.0
        options = planner.spatial_options(shape, weight.reshape(64, 256, 1, 1), CPU, CONFIG)
        by_name = {option.algorithm: option.cost.cycles for option in options}
        gain = by_name["dense_direct"] / by_name["sparse_direct"]
        chosen[gain] = options[0].algorithm
    ahead = 1 + planner.CAUTION
    assert {kind for gain, kind in chosen.items() if gain > ahead} == {"sparse_direct"}
    assert {kind for gain, kind in chosen.items() if 1 < gain < ahead - 0.15} == {"dense_direct"}
