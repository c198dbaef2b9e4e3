"""Every operator beside its floor: the networks, the record, the page."""

import sys
from pathlib import Path

import numpy as np
import pytest
from network_cases import narrow
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import network_operators
import operator_cases
import operators_page


@pytest.fixture
def small(monkeypatch):
    model, _ = narrow("resnet18")
    monkeypatch.setitem(operator_cases.ZOO, "resnet18", (lambda: model, False, (1, 3, 32, 32)))
    monkeypatch.setattr(network_operators, "_SECONDS", 0.01)


@pytest.mark.parametrize(("density", "engines"), [(1.0, 2), (0.1, 1)])
def test_a_network_is_checked_and_measured(small, density, engines):
    line = network_operators.measure("resnet18", density)
    assert len(line["errors"]) == engines
    assert 0 < max(line["errors"].values()) < 1e-4
    assert len(line["operators"]) <= line["kernels"]
    for row in line["operators"]:
        assert row["share"] > network_operators.MENTIONED
        assert row["bound"] in ("FLOPs", "bytes", "call")


def test_wrong_answers_stop_the_run(small, monkeypatch):
    made = operator_cases.make("resnet18", 0.1)
    wrong = {"PyTorch": [answer + 1 for answer in made.answers["PyTorch"]]}
    made = operator_cases.Made(made.module, made.x, wrong)
    monkeypatch.setattr(operator_cases, "make", lambda name, density: made)
    with pytest.raises(SystemExit, match=r"resnet18 at density 0.1: wrong answer"):
        network_operators.measure("resnet18", 0.1)


def test_light_models_are_pruned_but_for_groups():
    rng = np.random.default_rng(0)
    arrays = {
        "conv": rng.standard_normal((8, 4, 3, 3)),
        "depthwise": rng.standard_normal((8, 1, 3, 3)),
        "bias": rng.standard_normal(8),
        "matrix": rng.standard_normal((8, 50)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv", "bias"], ["a"]),
        helper.make_node("Conv", ["a", "depthwise"], ["b"], group=8),
        helper.make_node("Gemm", ["b", "matrix"], ["y"]),
    ]
    held = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    proto = helper.make_model(helper.make_graph(nodes, "g", [], [], held))
    operator_cases.prune(proto, 0.1)
    left = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    shares = {name: np.count_nonzero(array) / array.size for name, array in left.items()}
    assert shares == pytest.approx(
        {"conv": 0.1, "depthwise": 1, "bias": 1, "matrix": 0.1}, abs=0.01
    )
    largest = np.abs(arrays["matrix"]) >= np.sort(np.abs(arrays["matrix"]).ravel())[-40]
    assert np.array_equal(left["matrix"] != 0, largest)


def line(network, density, *operators):
    limits = {
        "flops": 1e11,
        "copies": {"16384": 9e10, "2097152": 3e10},
        "cycles": 3e9,
        "call": 2e-6,
    }
    keys = ("layer", "kernel", "ms", "share", "floor_ms", "bound", "of_floor")
    return {
        "network": network,
        "density": density,
        "errors": {"PyTorch": 1e-6},
        "compile_seconds": 1.0,
        "ms": 5.0,
        "kernels": 9,
        "limits": limits,
        "operators": [
            {**dict(zip(keys, values, strict=True)), "output": [1, 8]} for values in operators
        ],
        "machine": {"processor": "CPU"},
        "versions": {"python": "3"},
    }


POOL = ("", "max_pool2d", 0.5, 0.1, 0.1, "bytes", 0.2)
CONV = ("a", "dense_direct_3x3", 1.0, 0.2, 0.5, "FLOPs", 0.5)
SAME = ("b", "dense_direct_3x3", 2.0, 0.4, 0.5, "FLOPs", 0.25)
ODD = ("", "odd", 0.7, 0.14, 0.007, "call", 0.01)


def test_the_page_names_what_is_far_from_its_floor():
    text = operators_page.BEGIN + "old\n" + operators_page.END
    made = operators_page.page(text, [line("net", 1.0, POOL, CONV, SAME), line("net", 0.1, ODD)])
    assert "old" not in made
    assert "| net | 1 | 5.00 | 9 | 3 | 1 | PyTorch 1.0e-06 |" in made
    assert "| net, 1 | max_pool2d | 1x8 | 0.500 | 10.0% | bytes | 20% | (1) |" in made
    assert "(1) " + operators_page.REASONS["max_pool"] in made
    assert "| net, 0.1 | odd | 1x8 | 0.700 | 14.0% | call | 1% |  |" in made
    assert "| a, b | dense_direct_3x3 | 1.000 to 2.000 | 60.0% | 0.5000 | FLOPs | 25% |" in made
    assert "16 KiB 90 to 90, 2 MiB 30 to 30" in made
    nothing = operators_page.page(text, [line("net", 1.0, CONV)])
    assert "None." in nothing


def test_the_summary_says_the_same():
    said = operators_page.summary(line("net", 0.1, POOL, CONV))
    assert said.splitlines()[0].startswith("net, density 0.1: 5.00 ms, 2 of 9 operators above 1 %")
    assert said.splitlines()[1:] == ["   20% of its bytes: max_pool2d, 10.0%, max_pool2d"]


def test_a_line_replaces_its_like_and_keeps_the_order(tmp_path):
    path = tmp_path / "record.jsonl"
    assert network_operators.known(path) == {}
    for made in (line("vgg16", 0.1), line("resnet18", 0.1), line("vgg16", 1.0), line("vgg16", 0.1)):
        network_operators.keep(path, {**made, "ms": 7.0})
    assert list(network_operators.known(path)) == [("resnet18", 0.1), ("vgg16", 1), ("vgg16", 0.1)]


def test_what_is_recorded_is_not_measured_again(tmp_path, monkeypatch, capsys):
    record, page = tmp_path / "r.jsonl", tmp_path / "page.md"
    page.write_text(operators_page.BEGIN + operators_page.END)
    network_operators.keep(record, line("resnet18", 1.0))
    measured = []

    def measure(name, density):
        measured.append((name, density))
        made = line(name, density, CONV)
        return {key: made[key] for key in made if key not in ("machine", "versions")}

    monkeypatch.setattr(network_operators, "measure", measure)
    command = ["x", "--only", "resnet18", "--out", str(record), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", command)
    network_operators.main()
    assert measured == [("resnet18", 0.1)]
    assert "resnet18, density 0.1" in capsys.readouterr().out
    assert "| resnet18 | 0.1 |" in page.read_text()
    monkeypatch.setattr(sys, "argv", [*command, "--again"])
    network_operators.main()
    assert measured[1:] == [("resnet18", 1.0), ("resnet18", 0.1)]


def test_the_page_is_what_the_record_says():
    text = operators_page.PAGE.read_text()
    record = list(network_operators.known(network_operators.RECORD).values())
    assert operators_page.page(text, record) == text


def test_all_networks_are_there():
    assert {"vgg16", "vgg16-without-fc", "unet", "ffdnet"} < set(operator_cases.NAMES)
    assert len(operator_cases.LIGHT) == 9
