"""Options that the races of layers and of networks share."""

import argparse

import pytest

from tvm_sparsewino.bench.race import Effort
from tvm_sparsewino.cli import bench_race


@pytest.mark.parametrize(
    ("options", "effort"),
    [
        ([], Effort(15, 8.0, "wall")),
        (["--rounds", "4", "--seconds", "1.5", "--clock", "cpu"], Effort(4, 1.5, "cpu")),
        (["--quick", "--rounds", "9"], Effort(3, 2.0, "wall")),
    ],
)
def test_how_long_a_race_goes_on(options, effort):
    parser = argparse.ArgumentParser()
    bench_race.add_arguments(parser, 8.0)
    given = parser.parse_args([*options, "--out", "record.jsonl"])
    assert bench_race.effort(given, quick=2.0) == effort
    assert (given.batch, given.threads, given.peers) == ([1, 16], [1, 2], ["all"])


def test_a_race_needs_a_record(capsys):
    parser = argparse.ArgumentParser()
    bench_race.add_arguments(parser, 8.0)
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "required: --out" in capsys.readouterr().err
