"""Times of kernels: who they belong to, shares and floors, the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from relax_networks import conv, module
from tvm import relax

from tvm_sparsewino import driver
from tvm_sparsewino.bench.profile_figures import Limits, copy_rates, far_from_floor, rows, to_json
from tvm_sparsewino.bench.profile_report import profile_lines, profile_table
from tvm_sparsewino.bench.profile_run import call_seconds, profile_network
from tvm_sparsewino.cli import bench as cli_bench
from tvm_sparsewino.cli import main as cli
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.profile import KernelTime, NetworkTime, assign
from tvm_sparsewino.schedules.build import kernel_name

SHAPE = ConvShape(1, 8, 9, 9, 8, 3, (1, 1, 1, 1))


@pytest.fixture(scope="module")
def exe():
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((8, 8, 3, 3)).astype("float32") for _ in range(2))

    def build(b, x):
        y = b.emit(relax.op.nn.relu(conv(b, x, first, name="first")))
        y = b.emit(relax.op.nn.max_pool2d(y, (3, 3)))
        return b.emit(relax.op.nn.softmax(conv(b, y, second, name="second"), 1))

    return driver.compile(module(build, (1, 8, 9, 9)), "llvm", num_threads=1)


def test_every_kernel_is_timed_and_layers_are_found(exe):
    measured = profile_network(exe, 3)
    assert len(measured.seconds) == 3
    names = [kernel.plan.name for kernel in measured.kernels if kernel.plan is not None]
    assert names == ["first", "second"]
    assert len(measured.kernels) > 2
    first = measured.kernels[0]
    assert first.output == (1, 8, 9, 9)
    assert first.moved > 2 * 4 * 8 * 81  # maps in and out; the weights are packed
    for kernel in measured.kernels:
        assert len(kernel.seconds) == 3
        assert min(kernel.seconds) > 0


def plan(name, algorithm="dense_direct", m=0, **more):
    return LayerPlan(name, SHAPE, 1.0, algorithm, m, flops_done=10**9, cost_cycles=4e6, **more)


def test_layers_that_share_a_kernel_are_told_apart_by_their_order():
    plans = [plan("a"), plan("b", "dense_winograd", 4), plan("left", "left"), plan("c")]
    plain = kernel_name(plans[0], Epilogue())
    relu = kernel_name(plans[1], Epilogue(bias=True, activation="relu"))
    calls = [plain, "max_pool2d", relu, f"{plain}_bias_1", plain]
    named = [found and found.name for found in assign(calls, plans)]
    assert named == ["a", None, "b", "c", None]


def kernels():
    return NetworkTime(
        (0.011, 0.010, 0.012),
        (
            KernelTime("conv", plan("a"), (0.004, 0.005, 0.009), 1000, (1, 8)),
            KernelTime("pool", None, (0.005,), 2_000_000, (1, 8)),
            KernelTime("tiny", None, (0.00001,), 10, (1, 8)),
        ),
    )


LIMITS = Limits(flops=400e9, copies={10_000: 1e9, 1_000_000: 0.5e9}, cycles=2e9)


def test_shares_and_floors():
    conv_row, pool, tiny = rows(kernels(), LIMITS)
    assert conv_row.ms == 5.0
    assert conv_row.share == pytest.approx(0.4995, abs=1e-4)
    assert conv_row.predicted_ms == 2.0
    assert conv_row.floor_ms == 2.5  # of its FLOPs
    assert conv_row.of_floor == 0.5
    assert (pool.predicted_ms, pool.floor_ms) == (None, 4.0)  # of its bytes, beyond all sizes
    assert tiny.floor_ms == pytest.approx(1e-5)
    assert [row.bound for row in (conv_row, pool, tiny)] == ["FLOPs", "bytes", "bytes"]
    assert far_from_floor([conv_row, pool, tiny]) == []  # one of no time does not matter
    assert far_from_floor([conv_row, pool, tiny], least=0.6) == [conv_row]


def test_calls_have_a_floor_and_times_may_be_the_least():
    calling = replace(LIMITS, call=5e-6)
    conv_row, pool, tiny = rows(kernels(), calling, min)
    assert (tiny.bound, tiny.floor_ms, tiny.of_floor) == ("call", 5e-3, 0.5)
    assert (conv_row.bound, conv_row.ms, conv_row.of_floor) == ("FLOPs", 4.0, 0.625)
    assert pool.share == pytest.approx(5 / 9.01)


def test_a_call_takes_time():
    assert 1e-8 < call_seconds("cpu") < 1e-2  # any machine


def test_what_is_said():
    every = rows(kernels(), LIMITS)
    text = "\n".join(profile_lines(kernels(), every, far_from_floor(every, least=0.6)))
    assert "a call: 11.000 ms, median of 3; its 3 kernels" in text
    assert "planned layers: 5.000 ms, predicted 2.000 ms" in text
    assert "far from its floor: a: 50.0% of the time, 50% of the floor" in text
    assert "no kernel of more than 1 %" in profile_lines(kernels(), every, [])[-1]
    assert profile_table(every, 2).row_count == 2
    assert json.loads(json.dumps(to_json(kernels(), every, LIMITS)))["kernels"][0]["layer"] == "a"


def test_copies_are_measured():
    one, two = copy_rates(1), copy_rates(2)
    assert one.keys() == two.keys()
    assert min(one.values()) > 1e7  # any machine


@pytest.mark.parametrize(("runs", "clock"), [(0, "wall"), (1, "sun")])
def test_bad_requests(exe, runs, clock):
    with pytest.raises(ConfigError, match=r"runs must be|cannot time"):
        profile_network(exe, runs, clock)


def test_command_line(exe, tmp_path, capsys):
    file = tmp_path / "net.so"
    exe.save(file)
    assert cli.main(["bench", str(file), "--runs", "2", "--threads", "1"]) == 0
    assert "median of 2, 1 threads" in capsys.readouterr().out
    options = ["--json", tmp_path / "p.json", "--plot", tmp_path / "p.png", "--clock", "cpu"]
    command = ["bench", "model", file, "--profile", "--runs", "2", "--threads", "1", *options]
    assert cli.main(list(map(str, command))) == 0
    text = capsys.readouterr().out
    assert "first" in text
    assert "planned layers" in text
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert len(json.loads((tmp_path / "p.json").read_text())["kernels"]) > 2


def test_a_network_needs_no_subcommand():
    assert cli_bench.normalised(["net.so", "--profile"]) == ["model", "net.so", "--profile"]
    for given in ([], ["--help"], ["layers", "--quick"], ["report", "x"]):
        assert cli_bench.normalised(given) == given


def test_of_a_tensor_that_holds_more_than_the_operand_the_operand_counts():
    """Two small kernels that write into one large map, and one that reads of it what they wrote."""
    weight = np.random.default_rng(0).standard_normal((8, 1, 1, 1)).astype("float32")

    def build(b, x):
        parts = [conv(b, x, weight * scale, padding=0, name=f"c{scale}") for scale in (1, 2)]
        pooled = b.emit(relax.op.nn.max_pool2d(parts[0], (31, 31)))
        joined = b.emit(relax.op.concat(parts, axis=1))
        return b.emit(relax.Tuple([joined, pooled]))

    joined = driver.compile(module(build, (1, 1, 31, 31)), "llvm", num_threads=1)
    *convs, pool = profile_network(joined, 2).kernels
    assert [kernel.plan.name for kernel in convs] == ["c1", "c2"]
    for kernel in convs:
        assert 4 * 9 * 31 * 31 <= kernel.moved < 4 * 10 * 31 * 31  # and weights
    assert pool.moved == 4 * 8 * (31 * 31 + 1)


def test_what_is_added_in_place_is_read_as_well():
    weight = np.zeros((4, 4, 1, 1), np.float32)
    weight[0, 0] = 1

    def build(b, x):
        y = conv(b, x, weight, padding=0, name="c1")
        once = conv(b, y, weight, padding=0, name="c2")
        y = b.emit(relax.op.add(conv(b, once, weight, padding=0, name="c3"), y))
        return b.emit(relax.op.nn.max_pool2d(y, (31, 31)))

    added = driver.compile(module(build, (1, 4, 31, 31)), "llvm", num_threads=1)
    first, _, third, _ = profile_network(added, 2).kernels
    assert (first.plan.name, third.plan.name) == ("c1", "c3") and "_in_place" in third.kernel
    assert [k.moved // (4 * 4 * 31 * 31) for k in (first, third)] == [2, 3]  # and few weights
