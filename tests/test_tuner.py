"""The tuner: its candidates, its search over pretended machines, and small layers for real."""

import dataclasses
import itertools

import numpy as np
import pytest
from relax_networks import conv, module, winograd
from tvm import relax

from tvm_sparsewino import driver
from tvm_sparsewino.config import CompileConfig, ConvShape, LayerPlan
from tvm_sparsewino.errors import ConfigError, TargetError, TuneError
from tvm_sparsewino.geometry import make_panels
from tvm_sparsewino.planner import plan_of, spatial_options, winograd_options
from tvm_sparsewino.records import read_records, tuned_fields
from tvm_sparsewino.reference import conv2d
from tvm_sparsewino.schedules import cpu_features
from tvm_sparsewino.schedules.target import parse_target
from tvm_sparsewino.tuner.candidates import neighbours, starts
from tvm_sparsewino.tuner.measure import LocalMachine, Problem
from tvm_sparsewino.tuner.network import layers_to_tune
from tvm_sparsewino.tuner.search import TOLERANCE, Search
from tvm_sparsewino.tuner.version import kernel_sources, kernel_version

CPU = parse_target("llvm -mcpu=znver3")
HOST = parse_target("native")
SHAPE = ConvShape(1, 64, 56, 56, 64, 3, (1, 1, 1, 1))
CONFIG = CompileConfig()


def sparse(rng, density, *shape):
    values = rng.standard_normal(shape).astype("float32")
    return np.where(rng.random(shape) < density, values, 0).astype("float32")


@pytest.fixture
def problem(rng):
    return Problem(SHAPE, sparse(rng, 0.1, 36, 64, 64), 4)


@pytest.fixture
def plans(problem):
    options = winograd_options(SHAPE, problem.weight, 4, CPU)
    return starts(problem, options, CPU, 1)


# ---- candidates --------------------------------------------------------------------------------


def test_the_models_choice_comes_first_and_others_differ(problem, plans):
    options = winograd_options(SHAPE, problem.weight, 4, CPU)
    assert plans[0] == plan_of("", SHAPE, options[0])
    assert len(plans) == len(set(plans)) > 1


def test_filters_start_with_several_tiles(rng):
    weight = rng.standard_normal((64, 64, 3, 3)).astype("float32")
    options = spatial_options(SHAPE, weight, CPU, CompileConfig(max_tile=6))
    found = starts(Problem(SHAPE, weight, 0), options, CPU, 1)
    assert len({(p.algorithm, p.m) for p in found}) > 2


def test_neighbours_are_other_kernels_that_fit(plans):
    for plan in plans:
        near = neighbours(plan, CPU, 1)
        assert plan not in near
        changed = set()
        for other in near:
            before, after = tuned_fields(plan), tuned_fields(other)
            changed |= {name for name in before if before[name] != after[name]}
            if other.algorithm == "sparse_winograd":
                vectors = make_panels(SHAPE, 4, 8, other.panel_vectors).vectors
                assert vectors * other.rows_at_once <= CPU.vector_registers - 3
            assert other.rows_at_once >= 1 and 1 <= other.k_block <= 64 and other.channel_block >= 1
        assert changed == {"panel_vectors", "k_block", "channel_block", "rows_at_once"}


def test_only_several_threads_share_out_blocks(plans):
    one, two = (neighbours(plans[0], CPU, threads) for threads in (1, 2))
    assert [p for p in two if p not in one] == [p for p in two if p.split_k] != []
    assert {p.sharers for p in two} == {0, 2}
    shared = next(p for p in two if p.sharers)
    assert {p.sharers for p in neighbours(shared, CPU, 2)} == {0, 2}


def test_on_wide_registers_half_of_their_lanes_is_tried_too(problem):
    wide = parse_target("llvm -mcpu=skylake-avx512")
    options = winograd_options(SHAPE, problem.weight, 4, wide)
    plan = dataclasses.replace(plan_of("", SHAPE, options[0]), lanes=0, panel_vectors=2)
    (half,) = (p for p in neighbours(plan, wide, 1) if p.lanes)
    assert (half.lanes, half.panel_vectors) == (8, 4)
    assert plan in [dataclasses.replace(p, **_unpriced(plan)) for p in neighbours(half, wide, 1)]


def test_sparse_direct_kernels_try_copies_and_half_of_the_lanes():
    wide = parse_target("llvm -mcpu=skylake-avx512")
    shape = ConvShape(1, 64, 28, 28, 64, 1)
    plan = LayerPlan("", shape, 0.1, "sparse_direct", 0, 4, 64, 64, 4)
    near = neighbours(plan, wide, 1)
    assert [p.copied for p in near].count(True) == 1
    assert [(p.lanes, p.panel_vectors) for p in near if p.lanes] == [(8, 8)]
    whole = dataclasses.replace(plan, panel_vectors=0)
    assert [(p.lanes, p.panel_vectors) for p in neighbours(whole, wide, 1) if p.lanes] == [(8, 0)]
    odd = dataclasses.replace(plan, conv=dataclasses.replace(shape, h=27))
    assert not any(p.copied for p in neighbours(odd, wide, 1))


def _unpriced(plan):
    return {"flops_done": plan.flops_done, "cost_cycles": plan.cost_cycles}


def test_a_direct_plan_has_neighbours_of_its_own(rng):
    weight = rng.standard_normal((64, 64, 3, 3)).astype("float32")
    options = spatial_options(SHAPE, weight, CPU, CompileConfig(winograd_for_dense=False))
    plan = plan_of("", SHAPE, options[0])
    panels = {p.panel_vectors for p in neighbours(plan, CPU, 1)}
    assert {plan.panel_vectors // 2, plan.panel_vectors * 2} <= panels


# ---- search ------------------------------------------------------------------------------------


class Pretended:
    """A machine on which ``seconds(plan)`` is how long a plan takes; counts calls and kernels."""

    def __init__(self, seconds, output=lambda plan: np.ones(3)):
        self.time, self.answer = seconds, output
        self.calls, self.built = {}, []

    def kernel(self, problem, plan):
        self.built.append(plan)
        self.calls[plan] = 0
        return PretendedKernel(self, plan)


class PretendedKernel:
    def __init__(self, machine, plan):
        self.machine, self.plan = machine, plan

    def seconds(self):
        self.machine.calls[self.plan] += 1
        return self.machine.time(self.plan)

    def output(self):
        return self.machine.answer(self.plan)


def distance(plan):
    """Least at a plan that is several steps from where the model starts."""
    wanted = {"panel_vectors": 2, "k_block": 24, "channel_block": 16, "rows_at_once": 4}
    off = [abs(np.log2(getattr(plan, name) / value)) for name, value in wanted.items()]
    return 1e-3 * (1 + sum(off))


def test_the_search_walks_to_the_fastest_plan(problem, plans):
    machine = Pretended(distance)
    found = Search(problem, machine, CPU, 1, 1e9).run(plans)
    best = min(distance(p) for p in machine.built)
    assert found.seconds == found.median_seconds == distance(found.plan) == best
    near = neighbours(found.plan, CPU, 1)
    assert all(distance(p) >= 0.99 * best for p in near)
    assert found.model_seconds == distance(plans[0]) > 1.5 * found.seconds
    assert found.candidates == len(machine.built) > len(plans)
    assert found.refused == ()
    assert len(set(machine.built)) == len(machine.built)


def test_losers_are_dropped_early(problem, plans):
    """Only the three that are compared at the end are called more than four times."""
    plans = [plans[0], *neighbours(plans[0], CPU, 1)]
    machine = Pretended(lambda plan: 1e-3 if plan is plans[0] else 2e-3)
    Search(problem, machine, CPU, 1, 1e9).run(plans)
    assert sum(machine.calls[plan] > 4 for plan in plans) == 3 < len(plans) - 3


def test_no_new_candidates_when_time_is_up(problem, plans):
    ticks = itertools.count()
    machine = Pretended(distance)
    plans = [plans[0], *neighbours(plans[0], CPU, 1)]
    found = Search(problem, machine, CPU, 1, 2.5, clock=lambda: float(next(ticks))).run(plans)
    assert machine.built == plans[: len(machine.built)]
    assert 1 <= found.candidates == len(machine.built) < len(plans)


@pytest.mark.parametrize("wrong", [np.full(3, 1 + 2 * TOLERANCE), np.full(3, np.nan)])
def test_a_wrong_answer_never_wins(problem, plans, wrong):
    right = np.ones(3)
    machine = Pretended(
        lambda plan: 1e-3 if plan is plans[0] else 1e-6,
        lambda plan: right if plan in plans[:2] else wrong,
    )
    found = Search(problem, machine, CPU, 1, 1e9).run(plans)
    assert found.plan == plans[1]
    assert found.candidates == 2
    assert found.refused and all("a wrong answer: off by" in text for text in found.refused)


def test_plans_without_a_kernel_are_passed_over(problem, plans):
    class Picky(Pretended):
        def kernel(self, problem, plan):
            if plan.channel_block != plans[0].channel_block:
                raise ConfigError("no such kernel")
            return super().kernel(problem, plan)

    found = Search(problem, Picky(distance), CPU, 1, 1e9).run(plans)
    assert found.plan.channel_block == plans[0].channel_block
    assert "no such kernel" in found.refused


def test_a_first_candidate_that_fails_is_an_error(problem, plans):
    machine = Pretended(distance, lambda plan: np.full(3, np.nan))
    with pytest.raises(TuneError, match="own choice cannot be measured: a wrong answer"):
        Search(problem, machine, CPU, 1, 1e9).run(plans)


# ---- for real ----------------------------------------------------------------------------------

SMALL = ConvShape(1, 8, 12, 11, 8, 3, (1, 1, 1, 1))


def test_kernels_on_this_machine_compute_the_layer(rng):
    """Float32 against float64 at 8 channels: far below 1e-5; 1e-4 leaves no wrong answer in."""
    weight = rng.standard_normal((8, 8, 3, 3)).astype("float32")
    problem = Problem(SMALL, weight, 0)
    x, bias, _ = problem.activations
    want = np.maximum(conv2d(x, weight, bias, padding=SMALL.padding), 0)
    machine = LocalMachine(HOST, 1)
    for option in spatial_options(SMALL, weight, HOST, CompileConfig(max_tile=6)):
        kernel = machine.kernel(problem, plan_of("", SMALL, option))
        assert kernel.seconds() > 0
        assert np.abs(kernel.output() - want).max() <= 1e-4 * want.max(), str(option)


def network(rng):
    """Two equal Winograd layers, a plain convolution, and one of one tap."""
    u = sparse(rng, 0.2, 16, 8, 8)
    filters = [rng.standard_normal(s).astype("float32") for s in ((8, 8, 3, 3), (64, 8, 1, 1))]

    def build(b, x):
        x = winograd(b, x, u, m=2, name="first")
        x = winograd(b, x, u, m=2, name="second")
        x = b.emit(relax.op.nn.relu(conv(b, x, filters[0], name="plain")))
        return conv(b, x, filters[1], padding=0, name="head")

    return module(build, (1, 8, 12, 11))


def test_equal_layers_are_tuned_once(rng):
    layers = layers_to_tune(network(rng), HOST, CONFIG, 1)
    assert [layer.names for layer in layers] == [("first", "second"), ("plain",), ("head",)]
    assert [layer.key.weights for layer in layers] == ["F(2,3)", "spatial", "spatial"]
    few = layers_to_tune(network(rng), HOST, CompileConfig(min_channels=9), 1)
    assert [layer.names for layer in few] == [("first", "second")]


def test_a_network_is_tuned_and_compiled_with_its_records(rng, tmp_path):
    path, mod = tmp_path / "records.jsonl", network(rng)
    reported = []
    records = driver.tune(
        mod, path, num_threads=1, budget=1e-9, report=lambda *report: reported.append(report)
    )
    assert len(records) == len(reported) == len(path.read_text().splitlines()) == 3
    assert all(record.kernels == kernel_version() for record in records)
    book = read_records(path, kernel_version())
    assert [book.find(record.key) for record in records] == records
    plain, tuned = (driver.compile(mod, num_threads=1, records=r) for r in (None, path))
    for layer, record in zip(tuned.plan, (records[0], *records), strict=False):
        assert tuned_fields(layer) == dict(record.plan)
        assert f"measured {record.seconds * 1e3:.4g} ms, the fastest of 1 plans" in layer.reason
    assert tuned.plan[3].algorithm == "dense_direct"
    x = rng.standard_normal((1, 8, 12, 11)).astype("float32")
    assert np.array_equal(plain(x), tuned(x))  # nothing but the first candidates was measured


def test_requests_that_cannot_be_met(rng, tmp_path, monkeypatch):
    path, mod = tmp_path / "records.jsonl", network(rng)
    with pytest.raises(ConfigError, match="budget must be a positive number of seconds, got 0"):
        driver.tune(mod, path, budget=0)
    with pytest.raises(ConfigError, match="a remote machine needs its key, its target and"):
        driver.tune(mod, path, rpc_tracker="localhost:9190", rpc_key="board")
    few = frozenset({"avx2", "fma"})
    monkeypatch.setattr(cpu_features, "host_instruction_sets", lambda: few)
    with pytest.raises(TargetError, match=r"'llvm -mcpu=skylake-avx512' needs .*avx512f"):
        driver.tune(mod, path, "llvm -mcpu=skylake-avx512", num_threads=1)
    path.write_text("no record\n")
    for action in (driver.tune, lambda m, p: driver.compile(m, num_threads=1, records=p)):
        with pytest.raises(TuneError, match=r"records.jsonl:1: not JSON"):
            action(mod, path)
    with pytest.raises(ConfigError, match="leaves nothing for records to decide"):
        driver.compile(mod, num_threads=1, plan=(), records=path)


def test_the_version_changes_with_the_kernels(tmp_path, monkeypatch):
    names = {path.name for path in kernel_sources()}
    known = {"sparse_gemm.py", "packing.py", "geometry.py", "row_slices.py", "cook_toom.py"}
    assert known <= names
    changed = tmp_path / "sparse_gemm.py"
    changed.write_text("")
    before = kernel_version.__wrapped__()  # not the kept one, which other tests read
    monkeypatch.setattr(
        "tvm_sparsewino.tuner.version.kernel_sources",
        lambda: [changed if p.name == changed.name else p for p in kernel_sources()],
    )
    assert kernel_version.__wrapped__() != before


def test_refused_plans_do_not_stop_a_layer(rng, monkeypatch):
    """A plan that no kernel can be built for; neighbours would only take time."""
    monkeypatch.setattr("tvm_sparsewino.tuner.search.neighbours", lambda plan, target, threads: [])
    weight = rng.standard_normal((8, 8, 3, 3)).astype("float32")
    options = spatial_options(SMALL, weight, HOST, CONFIG)
    good = plan_of("", SMALL, options[0])
    bad = dataclasses.replace(good, algorithm="left")
    found = Search(Problem(SMALL, weight, 0), LocalMachine(HOST, 1), HOST, 1, 60).run([good, bad])
    assert any("no packing for algorithm 'left'" in text for text in found.refused)
