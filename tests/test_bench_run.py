"""Races and whole runs, with kernels of a small layer and a fake peer."""

import json
import re
import sys
from pathlib import Path

import pytest

from tvm_sparsewino.bench import race as racing
from tvm_sparsewino.bench import shapes
from tvm_sparsewino.bench.contestants import PeerEntries
from tvm_sparsewino.bench.machine import fma_peak, machine, versions
from tvm_sparsewino.bench.peers import choose_peers
from tvm_sparsewino.bench.records import read_lines
from tvm_sparsewino.bench.worker import PeerFailed, Worker
from tvm_sparsewino.cli import main as cli
from tvm_sparsewino.schedules.target import parse_target

FAKE = Path(__file__).with_name("fake_peer.py")
SMALL = shapes.Layer(16, 16, 8, 8)
LIMITS = ("--rounds", "2", "--seconds", "0", "--tile", "2", "--density", "0.1")


class Steady:
    """A contestant that takes a second more with every call."""

    settle = 0.0

    def __init__(self, turns, name):
        self.turns, self.name, self.now = turns, name, 0.0

    def seconds(self, repeats, limit, clock):
        self.turns.append((self.name, clock))
        self.now += 1.0
        return [self.now]


class Broken(Steady):
    def seconds(self, repeats, limit, clock):
        super().seconds(repeats, limit, clock)
        raise PeerFailed("it\nbroke")


def test_contestants_take_turns():
    turns = []
    effort = racing.Effort(rounds=3, seconds=60.0, clock="cpu")
    rounds, failed = racing.race({n: Steady(turns, n) for n in "ab"}, 1, effort)
    assert turns == [(name, "cpu") for name in "ababab"]
    assert rounds == {"a": [[1.0], [2.0], [3.0]], "b": [[1.0], [2.0], [3.0]]}
    assert failed == {}


def test_a_contestant_that_fails_drops_out():
    turns = []
    contestants = {"a": Steady(turns, "a"), "b": Broken(turns, "b")}
    rounds, failed = racing.race(contestants, 2, racing.Effort(rounds=2))
    assert [name for name, _ in turns] == ["a", "b", "a"]
    assert (list(rounds), failed) == (["a"], {"b": "it broke"})


def test_a_race_ends_when_its_time_is_over():
    rounds, _ = racing.race({"a": Steady([], "a")}, 1, racing.Effort(rounds=9, seconds=0.0))
    assert len(rounds["a"]) == 2


def test_summary_is_per_convolution():
    values = racing.summary([[0.004, 0.008], [0.012, 0.016, 0.020]], 4)
    assert values == {
        "ms": 3.0,
        "quartiles": [2.0, 4.0],
        "fastest": 1.0,
        "calls": 5,
        "rounds": 2,
    }


def test_machine_and_peak():
    target = parse_target("native")
    assert machine(target)["cores"] >= 1
    assert versions()["tvm-sparsewino"]
    assert 1e9 < fma_peak(target, steps=2000) < 1e12  # one core of this decade


@pytest.fixture
def small(monkeypatch):
    """A network of one small layer."""
    monkeypatch.setattr(shapes, "network_layers", lambda network: {SMALL: 1})


@pytest.fixture
def peers_at(tmp_path):
    """Makes environments in which "torch" is the fake peer, in a way."""

    def make(how="right"):
        folder = tmp_path / how
        folder.mkdir(exist_ok=True)
        command = {"torch": [sys.executable, str(FAKE), how]}
        (folder / "peers.json").write_text(json.dumps(command))
        return folder

    return make


def bench(capsys, record, *options):
    """Run one race; exit code, output and errors."""
    command = ["bench", "layers", "--min-channels", "1", "--batch", "1", "--threads", "1"]
    code = cli.main([*command, *LIMITS, "--out", str(record), *map(str, options)])
    return (code, *capsys.readouterr())


def test_a_run_is_recorded_reported_and_continued(small, peers_at, tmp_path, capsys):
    record = tmp_path / "record.jsonl"
    peers = ("--peers", "torch", "--peers-at", peers_at())
    files = ("--plot", tmp_path / "plot.png", "--figures", tmp_path / "figures.json")
    code, text, _ = bench(capsys, record, *peers, *files)
    assert code == 0
    assert "1 of 1 races to run" in text
    assert "batch 1, threads 1: over the fastest dense peer: not measured" in text
    run, race = read_lines(record)
    assert run["peers"] == {"torch": {"fake": "1.0"}}
    assert run["peak_gflops"] > 1
    names = [r["name"] for r in race["results"]]
    ours = ["dense_direct", "dense_winograd F(2,3)", "sparse_winograd F(2,3) 0.1"]
    assert names == ["torch", *ours]
    assert race["results"][0]["settings"] == "threads=1"
    assert set(race["results"][-1]["stages"]) == {"input", "gemm", "output"}
    assert (race["chain"], race["failed"]) == (4, {})
    assert (tmp_path / "plot.png").exists()
    assert json.loads((tmp_path / "figures.json").read_text())["density"] == 0.1
    # Nothing is left to do; with another density the race is run again as a whole.
    assert "0 of 1 races to run" in bench(capsys, record, *peers)[1]
    assert len(read_lines(record)) == 2
    assert bench(capsys, record, *peers, "--density", "0.1,0.5", "--quick")[0] == 0
    assert len(read_lines(record)[-1]["results"]) == 5
    code, _, error = bench(capsys, record, *peers, "--seed", 1)
    assert (code, "made with seed 0, this run has 1" in error) == (cli.FAILED, True)


@pytest.mark.parametrize(
    "how, reason",
    [
        ("wrong", r"gave a wrong answer, error"),
        ("refuses", r"failed at 'load': ValueError: no such chain"),
        ("narrow", r"gave \(1, 1, 8, 8\), expected \(1, 16, 8, 8\)"),
        ("dies", r"ended at 'run': .*killed by itself"),
    ],
)
def test_a_peer_that_fails_takes_no_part(tmp_path, how, reason):
    (peer,) = choose_peers(["torch"])
    with Worker("torch", [sys.executable, str(FAKE), how]) as worker:
        entries = PeerEntries([peer], {"torch": worker}, tmp_path)
        made, failed = entries.entries(SMALL.conv(1), threads=1, seed=0)
    assert made == []
    assert re.search(f"peer 'torch' {reason}", failed["torch"])


def test_a_peer_that_dies_is_noted_and_started_for_the_next_race(small, peers_at, tmp_path, capsys):
    record = tmp_path / "record.jsonl"
    options = ("--peers", "torch", "--peers-at", peers_at("dies late"), "--batch", "1,2")
    code, text, _ = bench(capsys, record, *options)
    assert (code, text.count("peer 'torch' ended at 'time'")) == (0, 2)
    races = read_lines(record)[1:]
    assert [race["batch"] for race in races] == [1, 2]
    for race in races:
        assert "killed by itself" in race["failed"]["torch"]
        assert len(race["results"]) == 3
    assert "0 of 2 races to run" in bench(capsys, record, *options)[1]


def test_without_peers_and_with_the_tile_left_to_the_model(small, tmp_path, capsys):
    options = ("--peers", "none", "--tile", "best", "--structure", "rows2")
    assert bench(capsys, tmp_path / "record.jsonl", *options)[0] == 0
    race = read_lines(tmp_path / "record.jsonl")[-1]
    assert len(race["results"]) == 3
    assert race["results"][-1]["plan"]["structure"] == "rows2"


def test_missing_environments_and_bad_options(small, tmp_path, capsys):
    record = tmp_path / "record.jsonl"
    code, _, error = bench(capsys, record, "--peers-at", tmp_path)
    assert (code, "no environments of peers" in error) == (cli.FAILED, True)
    assert not record.exists()
    for options in (("--density", "x"), ("--batch", "0"), ("--clock", "sun")):
        with pytest.raises(SystemExit):
            bench(capsys, record, *options)
    assert cli.main(["bench", "report", str(tmp_path / "none.jsonl")]) == cli.FAILED
    assert "No such file" in capsys.readouterr().err


def test_a_peer_that_does_not_start(small, tmp_path, capsys):
    (tmp_path / "peers.json").write_text(json.dumps({"torch": ["nowhere-to-be-found"]}))
    code, _, error = bench(capsys, tmp_path / "r.jsonl", "--peers", "torch", "--peers-at", tmp_path)
    assert (code, "peer 'torch' does not start" in error) == (cli.FAILED, True)
