"""The script that searches stable rates keeps what it finds, in a folder that it makes first."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "training" / "stable_rates.py"
ROW = {"method": "white", "rate": 0.5, "bounded": True, "trials": [], "experiment": {}}


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("stable_rates", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_records_go_into_a_new_folder(script, tmp_path, monkeypatch, capsys):
    record = tmp_path / "new" / "deep" / "rates.jsonl"

    def search(experiment, methods, out, start, steps):
        assert record.parent.is_dir()  # before the hours that a search takes
        assert (experiment.seed, methods, out) == (7, ["white"], tmp_path / "out")
        assert (start, steps) == (0.25, 3)
        return [ROW, {**ROW, "bounded": False}]

    monkeypatch.setattr(script, "stable_rates", search)
    out = ["--out", str(tmp_path / "out"), "--record", str(record)]
    script.main(["white", *out, "--steps", "3", "--start", "0.25", "--set", "seed=7"])
    assert [json.loads(line) for line in record.read_text().splitlines()] == [
        ROW,
        {**ROW, "bounded": False},
    ]
    assert capsys.readouterr().out.splitlines() == [
        "white           0.5",
        f"{'white':15} 0.5 or more",
    ]


def test_a_folder_that_cannot_be_made_is_found_out_first(script, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(script, "stable_rates", lambda *_, **__: pytest.fail("searched"))
    with pytest.raises(OSError, match="file"):
        script.main(["--out", "x", "--record", str(tmp_path / "file" / "rates.jsonl")])
