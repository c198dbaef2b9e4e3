"""Many experiments from one file, and what is kept of them."""

import json
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path

import pytest

from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.nn.experiments import matrix, run_matrix
from tvm_sparsewino.nn.experiments.matrix import expand, read_records

MATRICES = Path(__file__).resolve().parent.parent / "benchmarks" / "training"

TABLE = {
    "base": {
        "network": "lenet5",
        "network_options": {"widths": [3, 4], "hidden": 8},
        "batch": 128,
        "dense": {"epochs": 0.2},
        "tune": {"epochs": 0.2},
        "prune": {"tile": 2, "every": 1, "images": 32},
        "cost": False,
    },
    "runs": [
        {"prune.method": "continued", "seed": [1, 2]},
        {"prune.method": "white", "prune.sparsity": [0.5, 0.8], "seed": [1, 2]},
    ],
}


def test_all_combinations_each_once():
    found = expand(TABLE)
    assert [(e.prune.method, e.prune.sparsity, e.seed) for e in found] == [
        ("continued", 0.9, 1),
        ("continued", 0.9, 2),
        ("white", 0.5, 1),
        ("white", 0.5, 2),
        ("white", 0.8, 1),
        ("white", 0.8, 2),
    ]
    twice = {**TABLE, "runs": [*TABLE["runs"], {"prune.method": "continued", "seed": [2, 3]}]}
    assert [e.seed for e in expand(twice) if e.prune.method == "continued"] == [1, 2, 3]
    # The table itself is left as it was.
    assert "seed" not in TABLE["base"]


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"base": {}},
        {"base": {}, "runs": {}},
        {"runs": []},
        {"base": 3, "runs": []},
        {"base": {}, "runs": [{}, 3]},
        {"base": {}, "runs": [["seed"]]},
    ],
)
def test_another_form_is_refused(table):
    with pytest.raises(ConfigError, match='a matrix has "base"'):
        expand(table)


def test_dates_are_no_settings():
    for table in (
        {"base": {"seed": date(2020, 1, 2)}, "runs": [{}]},
        {"base": {}, "runs": [{"prune.options": {"every": date(2020, 1, 2)}}]},
    ):
        with pytest.raises(ConfigError, match="settings are numbers"):
            expand(table)


def test_a_file_without_base_is_refused_by_name(tmp_path):
    path = write(tmp_path / "m.json", {"runs": [{}]})
    with pytest.raises(ConfigError, match=r'm\.json: a matrix has "base"'):
        run_matrix(path, tmp_path / "out", tmp_path / "r.jsonl", settings=("seed=1",))


def write(path, table=TABLE):
    path.write_text(json.dumps(table))
    return path


def test_a_matrix_that_was_stopped_goes_on(tmp_path, monkeypatch):
    path, out, records = write(tmp_path / "m.json"), tmp_path / "out", tmp_path / "r" / "m.jsonl"
    real, done = matrix.run_experiment, []

    def counted(experiment, *args, **options):
        done.append(experiment)
        if len(done) == 4:
            raise KeyboardInterrupt
        return real(experiment, *args, **options)

    monkeypatch.setattr(matrix, "run_experiment", counted)
    with pytest.raises(KeyboardInterrupt):
        run_matrix(path, out, records, progress=False)
    assert len(read_records(records)) == 3
    found = run_matrix(path, out, records, progress=False)
    assert len(done) == 7 and len(found) == 6
    # Nothing is missing: nothing is done.
    assert run_matrix(path, out, records, progress=False) == found
    assert len(done) == 7
    for record in found:
        e = record["experiment"]
        pruned = e["prune"]["method"] == "white"
        assert record["zeros"] == {} or pruned
        if pruned:
            assert record["zeros"]["all"] == pytest.approx(e["prune"]["sparsity"], abs=0.02)
    # One dense network per seed.
    assert len(list(out.glob("*-start-*"))) == 2
    assert len({r["dense"]["accuracy"] for r in found if r["experiment"]["seed"] == 1}) == 1


def test_a_record_goes_on_its_own_line(tmp_path, monkeypatch):
    records = tmp_path / "r.jsonl"
    table = {**TABLE, "runs": [{"seed": [1, 2]}]}
    monkeypatch.setattr(matrix, "run_experiment", lambda e, *_, **__: {"experiment": asdict(e)})
    args = (write(tmp_path / "m.json", table), tmp_path / "out", records)
    run_matrix(*args, progress=False)
    first, _ = records.read_text().splitlines()
    records.write_text(first)
    assert len(run_matrix(*args, progress=False)) == 2
    assert len(read_records(records)) == 2


def test_all_runs_share_one_group_of_processes(tmp_path, monkeypatch):
    events = []

    @contextmanager
    def group(device):
        events.append(f"join {device}")
        yield
        events.append("leave")

    def ran(experiment, *args, **options):
        events.append(experiment.seed)
        return {"experiment": asdict(experiment)}

    monkeypatch.setattr(matrix, "joined", group)
    monkeypatch.setattr(matrix, "run_experiment", ran)
    table = {**TABLE, "runs": [{"seed": [1, 2], "device": "cpu"}]}
    args = (write(tmp_path / "m.json", table), tmp_path / "out", tmp_path / "r.jsonl")
    run_matrix(*args, progress=False)
    assert events == ["join cpu", 1, 2, "leave"]
    # Nobody is waited for where nothing is missing.
    assert len(run_matrix(*args, progress=False)) == 2 and len(events) == 4


def test_settings_go_over_the_file(tmp_path):
    table = {**TABLE, "runs": [{"prune.method": "dense"}]}
    args = (write(tmp_path / "m.json", table), tmp_path / "out", tmp_path / "r.jsonl")
    (record,) = run_matrix(*args, settings=("seed=5",), progress=False)
    assert record["experiment"]["seed"] == 5


def test_messages_name_the_file_and_the_run(tmp_path):
    bad = {"base": {"sead": 1}, "runs": [{}]}
    with pytest.raises(ConfigError, match=r"m\.json: unknown settings"):
        run_matrix(write(tmp_path / "m.json", bad), tmp_path / "out", tmp_path / "r.jsonl")
    worse = {"base": {}, "runs": [{"prune.method": "best", "dense.epochs": 0.05}]}
    with pytest.raises(ConfigError, match=r"digits-best-F4-90-seed1-.*prune\.method must be"):
        run_matrix(
            write(tmp_path / "w.json", worse),
            tmp_path / "out",
            tmp_path / "r.jsonl",
            progress=False,
        )


def test_names_tell_the_tiles_apart():
    table = {**TABLE, "runs": [{"prune.tile": [2, "auto", {"5": 4, "7": 2}]}]}
    names = [matrix.run_name(e) for e in expand(table)]
    for name, part in zip(names, ("-F2-90-", "-Fauto-90-", "-F4x5_2x7-90-"), strict=True):
        assert part in name


def test_records_that_are_none(tmp_path):
    path = tmp_path / "r.jsonl"
    assert read_records(path) == []
    for text in ("{", "[]", "{}", "3"):
        path.write_text(text + "\n")
        with pytest.raises(ConfigError, match="no record"):
            read_records(path)


@pytest.mark.parametrize("path", sorted(MATRICES.glob("*.json")), ids=lambda path: path.stem)
def test_kept_matrices_are_whole(path):
    found = expand(json.loads(path.read_text()))
    seeds = {e.seed for e in found}
    assert seeds == {1, 2, 3} and len(found) % len(seeds) == 0

    # What is fine-tuned is compared with the dense network trained on for as long, seed by seed.
    def comparable(experiment):
        options = json.dumps(experiment.network_options)
        return experiment.network, options, experiment.tune.epochs, experiment.seed

    tuned = [e for e in found if e.tune.epochs and e.prune.method != "continued"]
    continued = [comparable(e) for e in found if e.prune.method == "continued"]
    assert len(continued) == len(set(continued)) and set(continued) == set(map(comparable, tuned))
