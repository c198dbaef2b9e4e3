"""Benchmark of the inner loops: what is read from llvm-mca, and that the cut-down kernels hold."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from kernel_cases import HOST

from tvm_sparsewino.config import STRUCTURES
from tvm_sparsewino.hot_loop import Loop, hot_loop
from tvm_sparsewino.schedules.target import parse_target

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks" / "kernels"))
import loops
import mca

NAMES = [(mcpu, v) for mcpu, variants in mca.VARIANTS.items() for v in variants]
SMALL = [
    loops.Variant("sparse_winograd", 2, 2),
    *(loops.Variant("sparse_winograd", 2, 2, s) for s in STRUCTURES[1:]),
    loops.Variant("dense_winograd", 4, 2),
    loops.Variant("dense_direct", 4, 2),
]


def prediction(**summary):
    """Text as llvm-mca writes it, cut short."""
    region = {"Name": "", "Instructions": [], "SummaryView": summary}
    return json.dumps({"CodeRegions": [region], "TargetInfo": {"CPUName": "znver3"}})


def test_what_is_read():
    text = prediction(BlockRThroughput=13.5, TotalCycles=14620, Iterations=1000, Instructions=44000)
    assert mca.read_prediction(text) == mca.Prediction(cycles=14.62, port_bound=13.5)


@pytest.mark.skipif(not shutil.which(mca.TOOL), reason="llvm-mca is not installed")
@pytest.mark.parametrize(("mcpu", "name"), [("znver3", "ymm"), ("skylake-avx512", "zmm")])
def test_predictions_of_known_loops(mcpu, name):
    """Two multiply-adds a cycle, and four cycles from one to the next that needs it."""

    def loop(registers):
        lines = [f"vfmadd231ps %{name}0, %{name}1, %{name}{i}" for i in registers]
        return Loop(".L", (*lines, "decq %rax", "jne .L"))

    independent, chain = mca.predict(loop(range(2, 14)), mcpu), mca.predict(loop([2] * 4), mcpu)
    assert independent.port_bound == pytest.approx(6, abs=0.5)
    assert independent.cycles == pytest.approx(6, rel=0.05)
    assert chain.cycles == pytest.approx(16, rel=0.05)


@pytest.mark.skipif(not shutil.which(mca.TOOL), reason="llvm-mca is not installed")
def test_an_unknown_instruction_is_reported():
    with pytest.raises(SystemExit, match=r"llvm-mca-19: .*invalid instruction"):
        mca.predict(Loop(".L", ("vnonsense %zmm1", "jne .L")), "znver3")


def test_a_missing_tool_is_named(monkeypatch):
    monkeypatch.setattr(mca, "TOOL", "llvm-mca-of-nobody")
    monkeypatch.setattr(sys, "argv", ["mca.py"])
    with pytest.raises(SystemExit, match=r"llvm-mca-of-nobody is not installed.* llvm-19"):
        mca.main()


def test_every_kind_of_loop_has_an_entry():
    for variants in mca.VARIANTS.values():
        assert {v.structure for v in variants} == set(STRUCTURES)
        assert {v.algorithm for v in variants} == {mca.SPARSE, mca.DENSE, mca.DIRECT}
        assert {v.rows for v in variants if v.structure == "unstructured"} >= {1, 2, 3, 4}


@pytest.mark.parametrize("variant", SMALL, ids=lambda v: v.name)
def test_cut_down_kernels_compute_what_they_say(variant):
    """The answer is checked in ``prepare``; a wrong one is refused."""
    (_, channels, slices), *_ = sorted(variant.sizes)
    kernel = loops.Kernel(variant, HOST, channels, slices)
    kernel.prepare()()
    kernel._arrays[-2 if not variant.is_direct else 0][...] += 1
    with pytest.raises(SystemExit, match="wrong answer: error"):
        kernel.prepare()


def test_sizes_leave_only_the_loop():
    """Signs sum to zero over what does not grow with the loop: the calls, slices and channels."""
    for _, variant in NAMES:
        calls = [sum(sign for sign, *_ in variant.sizes)]
        calls.append(sum(sign * slices for sign, _, slices in variant.sizes))
        if variant.is_direct:
            calls.append(sum(sign * channels for sign, channels, _ in variant.sizes))
        assert not any(calls)
        assert variant.multiply_adds > 0


def test_an_entry():
    """Everything of one variant, measured with one repetition only."""
    if not shutil.which(mca.TOOL):
        pytest.skip("llvm-mca is not installed")
    variant = loops.Variant("sparse_winograd", 1, 2)
    target = parse_target("llvm -mcpu=znver3")
    entry = mca.examine(variant, target, 0)
    assert entry["measured_cycles"] is None and "measured" not in mca.line(entry)
    loop = hot_loop(loops.Kernel(variant, target, 512, 1).assembly)
    assert entry["multiply_adds"] == len(loop.multiply_adds) == 2 * entry["coefficients"]
    predicted = entry["predicted_cycles"]
    share = entry["multiply_adds"] * predicted["per_multiply_add"]
    assert share == pytest.approx(predicted["per_iteration"], rel=0.01)
    if HOST.lanes == target.lanes:
        measured = mca.examine(variant, HOST, 1)["measured_cycles"]
        assert measured and measured["per_multiply_add"] == pytest.approx(
            measured["per_coefficient"] / 2, rel=0.01
        )
