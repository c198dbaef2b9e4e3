"""The benchmark of networks: a whole run with a small one, PyTorch as a peer and a fake one."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tvm_sparsewino.bench import network_models
from tvm_sparsewino.bench.network_figures import figures, summarise_networks
from tvm_sparsewino.bench.network_plot import draw_networks
from tvm_sparsewino.bench.network_records import NetworkKey, network_races
from tvm_sparsewino.bench.network_report import network_summary
from tvm_sparsewino.bench.network_server import Server
from tvm_sparsewino.bench.records import read_lines
from tvm_sparsewino.cli import main as cli
from tvm_sparsewino.errors import ConfigError

TESTS = Path(__file__).parent
SERVE = TESTS.parent / "benchmarks" / "peers" / "serve.py"
FAKE = TESTS / "fake_network_peer.py"
FEW = ("--rounds", "2", "--seconds", "0", "--batch", "1", "--threads", "1", "--size", "224")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(
        network_models, "NETWORKS", {"alexnet": {"classes": 5, "width": 8, "hidden": 24}}
    )


def peers_at(folder, **commands):
    (folder / "peers.json").write_text(json.dumps(commands))
    return str(folder)


def bench(capsys, record, *options):
    command = ["bench", "networks", "--network", "alexnet", *FEW, "--out", str(record)]
    code = cli.main([*command, *map(str, options)])
    return (code, *capsys.readouterr())


def test_a_run_is_recorded_reported_and_continued(small, tmp_path, capsys):
    record = tmp_path / "record.jsonl"
    folder = peers_at(
        tmp_path,
        torch=[sys.executable, str(SERVE), "torch"],
        openvino=[sys.executable, str(FAKE), "zeros"],
        onnxruntime=[sys.executable, str(FAKE), "narrow"],
        deepsparse=[sys.executable, str(FAKE), "refuses"],
    )
    peers = ("--peers", "torch,openvino,onnxruntime,deepsparse-sparse90", "--peers-at", folder)
    files = ("--plot", tmp_path / "plot.png", "--figures", tmp_path / "figures.json")
    code, text, _ = bench(capsys, record, *peers, *files)
    assert code == 0
    assert "1 of 1 races to run" in text
    _, race = read_lines(record)
    assert [r["name"] for r in race["results"]] == ["torch", "ours 1", "ours 0.1"]
    for result in race["results"]:
        assert result["calls"] >= 2
        assert 0 < result["memory"]["start"] < result["memory"]["peak"]
        assert result["error"] < 1e-4  # float32, sums in another order, Winograd's rounding
    assert race["results"][1]["density"] == 1.0
    assert race["results"][2]["density"] == pytest.approx(0.1, abs=0.01)
    assert race["failed"].keys() == {"openvino", "onnxruntime", "deepsparse-sparse90"}
    assert "wrong answer" in race["failed"]["openvino"]
    assert "gave (1, 1), expected (1, 5)" in race["failed"]["onnxruntime"]
    assert "no such network" in race["failed"]["deepsparse-sparse90"]
    assert "density 0.1 over the fastest dense peer" in text
    assert (tmp_path / "plot.png").exists()
    (key,) = [k for k in json.loads((tmp_path / "figures.json").read_text()) if k != "statistic"]
    assert key == "alexnet 224x224 batch 1 threads 1"
    # Nothing is left to do; the report can be had again.
    assert "0 of 1 races to run" in bench(capsys, record, *peers)[1]
    assert cli.main(["bench", "report", str(record)]) == 0
    assert "peak memory of the process" in capsys.readouterr().out
    assert bench(capsys, record, *peers, "--seed", 1)[0] == cli.FAILED


def test_unknown_networks_are_named(tmp_path, capsys):
    code, _, error = bench(capsys, tmp_path / "r.jsonl", "--network", "lenet,alexnet")
    assert (code, "no network 'lenet'" in error) == (cli.FAILED, True)


def result(name, ms, peak=None, **more):
    return {"name": name, "ms": ms, "memory": {"peak": peak}, "error": 1e-6, **more}


def races():
    results = [
        result("torch", 30.0, 500.0),
        result("openvino", 20.0, 200.0),
        result("deepsparse-sparse90", 12.0),
        result("ours 1", 10.0, 400.0, asked_density=1.0, compile_seconds=3.0),
        result("ours 0.1", 4.0, 100.0, asked_density=0.1, compile_seconds=2.0),
    ]
    line = {"network": "resnet18", "batch": 1, "threads": 2, "size": 224}
    line |= {"kind": "network", "results": results, "failed": {"onnxruntime": "gone"}, "load": 9.0}
    return network_races([{"kind": "run"}, {**line, "results": []}, line])


def test_figures():
    (race,) = races().values()
    assert figures(race, "ms") == {
        "density 1 over the fastest dense peer": 2.0,
        "density 1 over openvino": 2.0,
        "density 1 over deepsparse-sparse90": 1.2,
        "density 1, memory of openvino over ours": 0.5,
        "density 0.1 over the fastest dense peer": 5.0,
        "density 0.1 over openvino": 5.0,
        "density 0.1 over deepsparse-sparse90": 3.0,
        "density 0.1, memory of openvino over ours": 2.0,
    }
    key = NetworkKey("resnet18", 1, 2, 224)
    assert summarise_networks(races()) == {"statistic": "ms", str(key): figures(race, "ms")}


def test_summary_tells_failures_and_a_busy_machine():
    text = "\n".join(network_summary(races(), "ms"))
    assert "onnxruntime failed: gone" in text
    assert "other programs ran, up to 7.0" in text


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ConfigError, match="no race of networks"):
        draw_networks({}, tmp_path / "plot.png", "ms")


def test_our_server_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(LookupError, match="unknown command 'dance'"):
        Server().answer("dance")
    with pytest.raises(LookupError, match="no network is loaded"):
        Server().answer("run", out=str(tmp_path / "out.npy"))
    assert not list(tmp_path.iterdir())


def test_images_are_the_same_for_every_batch():
    np.testing.assert_array_equal(
        network_models.images(3, 8, 0)[:2], network_models.images(2, 8, 0)
    )
