"""Which peers there are, and messages where their environments are not."""

import json
import sys
from pathlib import Path

import pytest

from tvm_sparsewino.bench import peers
from tvm_sparsewino.errors import ConfigError

SCRIPTS = Path(__file__).resolve().parent.parent / "benchmarks" / "peers"


def test_choice():
    assert peers.choose_peers(["all"]) == list(peers.PEERS)
    assert peers.choose_peers(["none"]) == []
    assert [p.name for p in peers.choose_peers(["ncnn", "torch", "ncnn"])] == ["ncnn", "torch"]
    with pytest.raises(ConfigError, match=r"no peer 'mkl'; there are all, none, torch"):
        peers.choose_peers(["torch", "mkl"])


def test_commands(tmp_path):
    (tmp_path / "peers.json").write_text(json.dumps({"deepsparse": ["python", "x"]}))
    chosen = peers.choose_peers(["deepsparse", "deepsparse-sparse90"])
    same = ["python", "x"]
    assert peers.peer_commands(chosen, tmp_path) == dict.fromkeys([p.name for p in chosen], same)


def test_a_missing_environment_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no environments of peers in .*install\.py"):
        peers.peer_commands(peers.choose_peers(["torch"]), tmp_path)
    (tmp_path / "peers.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"peer 'torch' has no environment in .*install\.py"):
        peers.peer_commands(peers.choose_peers(["torch"]), tmp_path)
    assert peers.peer_commands([], tmp_path / "nowhere") == {}


def test_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(peers.FOLDER_VARIABLE, str(tmp_path))
    assert peers.default_folder() == tmp_path
    monkeypatch.delenv(peers.FOLDER_VARIABLE)
    assert peers.default_folder().parts[-2:] == ("tvm-sparsewino", "peers")


@pytest.fixture
def install(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import install

    yield install
    for name in ("install", "serve"):
        sys.modules.pop(name, None)


def test_the_script_makes_what_the_benchmark_looks_for(install, monkeypatch, tmp_path):
    """Without a network: the environment is there, with the pins."""
    made = []
    monkeypatch.setattr(install, "environment", lambda folder, pins: made.append(pins) or folder)
    monkeypatch.setattr(sys, "argv", ["install.py", "--at", str(tmp_path)])
    install.main()
    commands = peers.peer_commands(peers.PEERS, tmp_path)
    assert commands["torch"][0] == sys.executable
    assert commands["ncnn"] == [str(tmp_path / "ncnn"), str(SCRIPTS / "serve.py"), "ncnn"]
    assert made == list(install.PINS.values())
    assert install.default_folder() == peers.default_folder()


def test_an_environment_with_the_same_pins_is_kept(install, tmp_path):
    (tmp_path / "pins.json").write_text(json.dumps(["a==1"]))
    assert install.environment(tmp_path, ["a==1"]) == tmp_path / "bin" / "python"
