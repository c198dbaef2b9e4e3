"""The protocol between the benchmark and its peers, spoken with a fake one."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tvm_sparsewino.bench.chain import relative_error, spatial_answer, spatial_chain
from tvm_sparsewino.bench.worker import PeerChain, PeerFailed, Worker
from tvm_sparsewino.config import ConvShape

FAKE = Path(__file__).with_name("fake_peer.py")


def fake(how="right"):
    return Worker("fake", [sys.executable, str(FAKE), how])


@pytest.fixture
def chain(tmp_path):
    chain = spatial_chain(ConvShape(2, 3, 6, 5, 3, 3, (1, 1, 1, 1)), 1.0, seed=0)
    chain.save(tmp_path / "chain.npz")
    return chain


def test_a_chain_is_loaded_run_and_timed(chain, tmp_path):
    with fake() as worker:
        assert worker.ask("hello") == {"engine": "fake", "versions": {"fake": "1.0"}}
        loaded = PeerChain(worker, tmp_path / "chain.npz", threads=2)
        assert loaded.settings == "threads=2"
        output = loaded.output(tmp_path / "output.npy")
        assert relative_error(output, spatial_answer(chain, [0, 1])) < 1e-5  # it is float32
        for clock in ("wall", "cpu"):
            seconds = loaded.seconds(3, 10.0, clock)
            assert len(seconds) == 3
            assert min(seconds) > 0
        assert len(loaded.seconds(1000, 0.0, "wall")) == 1
        assert worker.alive
        assert worker.ask("stop") == {}
    assert not worker.alive


def test_an_error_names_the_peer_and_leaves_it_alive(chain, tmp_path):
    with fake("refuses") as worker:
        with pytest.raises(PeerFailed, match="'fake' failed at 'load': ValueError: no such chain"):
            PeerChain(worker, tmp_path / "chain.npz", 1)
        with pytest.raises(PeerFailed, match="failed at 'dance': KeyError"):
            worker.ask("dance")
        assert worker.alive


def test_a_process_that_ends_is_quoted(chain, tmp_path):
    with fake("dies") as worker:
        loaded = PeerChain(worker, tmp_path / "chain.npz", 1)
        with pytest.raises(PeerFailed, match=r"'fake' ended at 'run': .*killed by itself"):
            loaded.output(tmp_path / "output.npy")
        with pytest.raises(PeerFailed, match="ended at 'hello'"):
            worker.ask("hello")
        assert not worker.alive


def test_a_command_that_is_not_there():
    with pytest.raises(PeerFailed, match=r"'fake' does not start: .*nowhere"):
        Worker("fake", ["nowhere-to-be-found"])


def test_peers_are_not_limited_by_our_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = "import json, os; input(); print(json.dumps({'n': os.environ.get('OMP_NUM_THREADS')}))"
    with Worker("shell", [sys.executable, "-c", code]) as worker:
        assert worker.ask("hello") == {"n": None}


def test_what_is_no_json_is_an_end():
    with (
        Worker("echo", [sys.executable, "-c", "input(); print('hm')"]) as worker,
        pytest.raises(PeerFailed, match="'echo' ended at 'hello': it said nothing"),
    ):
        worker.ask("hello")


def test_output_is_that_of_the_file(chain, tmp_path):
    with fake("narrow") as worker:
        loaded = PeerChain(worker, tmp_path / "chain.npz", 1)
        assert loaded.output(tmp_path / "o.npy").shape == (2, 1, 6, 5)
        assert np.load(tmp_path / "o.npy").shape == (2, 1, 6, 5)
