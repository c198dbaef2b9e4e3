"""The record: lines are added, read back, and the last race counts."""

import pytest
from bench_records import LAYER, OTHER, peer, race_line, run_line

from tvm_sparsewino.bench.records import RaceKey, add_line, check_continues, races, read_lines
from tvm_sparsewino.errors import ConfigError


def test_lines_come_back_and_the_last_race_counts(tmp_path):
    path = tmp_path / "folder" / "record.jsonl"
    lines = [
        run_line(peak_gflops=90.0),
        race_line(peer("torch", 2.0)),
        race_line(peer("torch", 3.0), layer=OTHER),
        run_line(),
        race_line(peer("torch", 1.0)),
    ]
    for line in lines:
        add_line(path, line)
    assert read_lines(path) == lines
    found = races(read_lines(path))
    assert list(found) == [RaceKey(LAYER, 1, 1), RaceKey(OTHER, 1, 1)]
    assert found[RaceKey(LAYER, 1, 1)]["results"][0]["ms"] == 1.0
    assert [race["run"]["peak_gflops"] for race in found.values()] == [100.0, 90.0]


def test_a_line_cut_off_in_writing_is_left_out_for_good(tmp_path):
    path = tmp_path / "record.jsonl"
    add_line(path, run_line())
    whole = path.read_text()
    path.write_text(whole + '{"version": 1, "kind": "ra')
    assert read_lines(path) == [run_line()]
    assert path.read_text() == whole


@pytest.mark.parametrize("text", ["x\n", "[1]\n", '{"version": 2}\n', "{}\n"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "record.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"record .*record\.jsonl: (not the JSON|version)"):
        read_lines(path)


def test_a_record_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"record .*none\.jsonl: No such file"):
        read_lines(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "name, value",
    [("seed", 1), ("clock", "cpu"), ("structure", "rows2"), ("processor", "another")],
)
def test_what_was_measured_otherwise_is_not_continued(tmp_path, name, value):
    lines = [run_line(), race_line()]
    check_continues(lines, run_line(), tmp_path)
    with pytest.raises(ConfigError, match=f"made with {name} .*this run has {value!r}"):
        check_continues(lines, run_line(**{name: value}), tmp_path)
