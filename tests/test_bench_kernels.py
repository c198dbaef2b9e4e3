"""Our kernels as contestants: planned, checked against float64, timed."""

import dataclasses

import numpy as np
import pytest

from tvm_sparsewino.bench.chain import make_input, spatial_chain
from tvm_sparsewino.bench.coefficients import winograd_chain
from tvm_sparsewino.bench.contestants import (
    Settings,
    entered,
    our_entries,
    our_names,
    parse_tiles,
)
from tvm_sparsewino.bench.kernels import KernelChain, Maps, checked
from tvm_sparsewino.bench.plans import spatial_plans, winograd_plans
from tvm_sparsewino.bench.stages import STAGES, stage_report
from tvm_sparsewino.config import CompileConfig, ConvShape
from tvm_sparsewino.errors import ConfigError, SparseWinoError
from tvm_sparsewino.planner import plan_winograd
from tvm_sparsewino.schedules.target import parse_target

SHAPE = ConvShape(2, 16, 9, 10, 16, 3, (1, 1, 1, 1))
SETTINGS = Settings(tiles=(2, 4), densities=(0.1, 0.5), structure="unstructured", seed=0)


@pytest.fixture(scope="module")
def target():
    return parse_target("native")


@pytest.fixture(scope="module")
def entries(target):
    return {entry.name: entry for entry in our_entries(SHAPE, SETTINGS, target, threads=1)}


def test_everyone_takes_part(entries, target):
    assert list(entries) == our_names(SHAPE, SETTINGS, target)
    assert list(entries) == [
        "dense_direct",
        "dense_winograd F(2,3)",
        "sparse_winograd F(2,3) 0.1",
        "sparse_winograd F(2,3) 0.5",
        "dense_winograd F(4,3)",
        "sparse_winograd F(4,3) 0.1",
        "sparse_winograd F(4,3) 0.5",
    ]


def test_facts_are_those_of_the_kernel(entries):
    for entry in entries.values():
        assert 0 < entry.facts["error"] < 2e-5  # the project's limit for F(4,3), with 16 channels
        assert entry.facts["plan"]["algorithm"] == entry.name.split()[0]
    facts = entries["sparse_winograd F(4,3) 0.5"].facts
    assert facts["nonzeros"] == pytest.approx(0.5 * 36 * 256, rel=0.1)
    assert facts["density"] == facts["nonzeros"] / (36 * 256)
    assert facts["asked_density"] == 0.5
    assert facts["bytes_of_weights"] > 4 * facts["nonzeros"]
    choice = entries["dense_direct"].facts["dense_choice"]
    assert choice in ("dense_direct", "dense_winograd F(2,3)", "dense_winograd F(4,3)")


def test_at_most_one_kernel_is_chosen_for_the_same_weights(target):
    u = winograd_chain(SHAPE, 4, 0.02, 0).weights[0]
    plans = winograd_plans(SHAPE, u, 4, target, 1)
    assert set(plans) == {"sparse_winograd", "dense_winograd"}
    assert sum(planned.chosen for planned in plans.values()) == 1
    assert plans["sparse_winograd"].chosen


@pytest.mark.parametrize("threads", [1, 2])
def test_the_chosen_plan_is_the_planner_s(target, threads):
    shape = ConvShape(1, 64, 14, 14, 64, 3, (1, 1, 1, 1))
    u = winograd_chain(shape, 2, 0.1, 0).weights[0]
    want = plan_winograd("layer", shape, u, 2, target, CompileConfig(), threads)
    plans = winograd_plans(shape, u, 2, target, threads).values()
    (got,) = (planned.plan for planned in plans if planned.chosen)
    assert got == dataclasses.replace(want, reason="")


def test_times(entries):
    kernel = entries["sparse_winograd F(4,3) 0.1"].contestant
    assert len(kernel.seconds(3, 10.0, "wall")) == 3
    assert len(kernel.seconds(1000, 0.0, "cpu")) == 1
    assert kernel.build_seconds > 0


def test_a_chain_feeds_each_convolution_with_the_last(target):
    chain = winograd_chain(SHAPE, 2, 0.5, 0)
    plan = winograd_plans(SHAPE, chain.weights[0], 2, target, 1)["sparse_winograd"].plan
    kernel = KernelChain(plan, chain, Maps(SHAPE, chain.x), target, threads=1)
    outputs = list(kernel.outputs())
    assert len(outputs) == 4
    assert not np.array_equal(outputs[0], outputs[2])
    assert len({id(step[0]) for step in kernel._steps}) == 1  # one compiled kernel for all


def test_a_wrong_weight_is_noticed(target):
    chain = spatial_chain(SHAPE, 1.0, 0)
    direct, _ = spatial_plans(SHAPE, chain.weights[0], target, 1)
    kernel = KernelChain(direct, chain, Maps(SHAPE, chain.x), target, threads=1)
    error, checksum = checked(kernel, chain)
    assert error < 1e-5
    assert checked(kernel, chain)[1] == checksum
    chain.weights[3][0, 0, 0, 0] += 1.0
    assert checked(kernel, chain)[0] > 1e-2


def test_a_wrong_kernel_takes_no_part(target, monkeypatch):
    monkeypatch.setattr("tvm_sparsewino.bench.contestants.WRONG", 0.0)
    with pytest.raises(SparseWinoError, match=r"dense_direct of ConvShape.*wrong answer, error"):
        list(our_entries(SHAPE, SETTINGS, target, threads=1))


def test_tiles():
    assert parse_tiles(["4", "2", "4"]) == (4, 2)
    assert parse_tiles(["best"]) == ()
    for wrong in (["3"], ["best", "2"], []):
        with pytest.raises(ConfigError, match="tiles must be out of 2, 4, 6, or be 'best', got"):
            parse_tiles(wrong)


def test_the_model_may_choose_the_tile_of_every_density(target):
    settings = Settings((), (1.0, 0.1), "unstructured", 0)
    chosen = entered(ConvShape(1, 64, 56, 56, 64, 3, (1, 1, 1, 1)), settings, target)
    assert sorted(d for densities in chosen.values() for d in densities) == [0.1, 1.0]
    assert set(chosen) <= {2, 4, 6}


def test_stages_have_time_work_bytes_and_a_share_of_their_floor(target):
    chain = winograd_chain(SHAPE, 4, 0.1, 0)
    plan = winograd_plans(SHAPE, chain.weights[0], 4, target, 1)["sparse_winograd"].plan
    kernel = KernelChain(plan, chain, Maps(SHAPE, make_input(SHAPE, 0)), target, threads=1)
    nonzeros = int(np.count_nonzero(chain.weights[0]))
    report = stage_report(plan, kernel.packed[0], kernel.single, nonzeros, target, 1e11, 2)
    assert tuple(report) == STAGES
    for values in report.values():
        assert min(values.values()) > 0
    cut = -(-9 // 4) * -(-10 // 4) * 2  # tiles of both images
    lanes = report["gemm"]["gflops"] * report["gemm"]["ms"] * 1e6 / (2 * nonzeros)
    assert lanes >= 0.99 * cut  # whole vectors of tiles, rounding of the figures aside
    assert report["output"]["bytes"] > 4 * 2 * 16 * 9 * 10
