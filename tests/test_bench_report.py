"""The tables and sentences made of a record."""

import io

import pytest
from bench_records import LAYER, OTHER, dense, direct, peer, race_line, raced, sparse
from rich.console import Console

from tvm_sparsewino.bench.plot import draw
from tvm_sparsewino.bench.report import stage_table, summary_lines, tables
from tvm_sparsewino.errors import ConfigError

STAGES = {
    stage: {"ms": 0.25, "gflops": 40.0, "bytes": 2_000_000, "share_of_floor": 0.5}
    for stage in ("input", "gemm", "output")
}


@pytest.fixture
def races():
    ours = (direct(5.0), dense(4, 3.0), sparse(4, 1.0, 6.0, chosen=False))
    return raced(
        race_line(
            peer("torch", 8.0),
            peer("deepsparse", 4.0),
            *ours,
            sparse(4, 0.1, 1.0, stages=STAGES),
        ),
        race_line(peer("torch", 8.0), *ours, sparse(4, 0.1, 3.5), layer=OTHER),
        race_line(*ours, sparse(4, 0.1, 0.5), threads=2, failed={"torch": "it died"}),
    )


def shown(*tables):
    console = Console(width=200, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def cells(text, layer):
    (line,) = (line for line in text.splitlines() if str(layer) in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_row_has_every_time_and_both_ratios(races):
    first, second = tables(races, "ms")
    row = cells(shown(first), LAYER)
    gflops = f"{LAYER.conv(1).direct_flops / 1e6:.0f}"  # in one millisecond
    expected = ["8.000", "4.000", "5.000", "", "1.000", "", gflops, "8.0", "4.0", "20%"]
    assert row == [str(LAYER), *expected]
    assert cells(shown(second), LAYER)[1:6] == ["", "", "5.000", "", "0.500"]


def test_fastest_times_are_shown_when_asked_for(races):
    first, _ = tables(races, "fastest")
    assert cells(shown(first), LAYER)[1] == "6.400"


def test_stages(races):
    text = shown(stage_table(races))
    assert text.count("F(4,3) 0.1") == 3
    (gemm,) = (line for line in text.splitlines() if " gemm " in line)
    values = [cell.strip() for cell in gemm.strip("│").split("│")][3:]
    assert values == ["0.2500", "40.0", "2.00", "50%"]


def test_sentences(races):
    text = "\n".join(summary_lines(races, "ms"))
    geomean = (8.0 * 8.0 / 3.5) ** 0.5
    assert f"over the fastest dense peer: {geomean:.2f}x geomean of 2, 2.29 ({OTHER})" in text
    assert f"two threads over one, batch 1: 2.00x geomean of 1, 2.00 ({LAYER})" in text
    assert f"slower than our own dense (above 1.05x): {OTHER} batch 1 threads 1" in text
    assert "slower with fewer nonzeros (above 1.05x): " + str(OTHER) in text
    assert "largest error of F(4,3): 1.0e-06 of the largest output, limit 2e-05" in text
    assert "batch 1, threads 2: over DeepSparse: not measured" in text


@pytest.mark.parametrize("load, told", [(1.4, False), (3.0, True)])
def test_a_busy_machine_is_told_of(load, told):
    text = "\n".join(summary_lines(raced(race_line(dense(2, 1.0), load=load)), "ms"))
    assert ("up to 2.0 at a time: these are no figures to report" in text) == told


def test_long_lists_are_cut():
    lines = [race_line(dense(2, 1.0), *(sparse(2, i / 20, 2.0) for i in range(1, 12)))]
    text = "\n".join(summary_lines(raced(*lines), "ms"))
    assert "2.00x and 3 more" in text


def test_picture(races, tmp_path):
    draw(races, tmp_path / "picture.png", "ms")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="no race with batch 16 and 1 threads"):
        draw(races, tmp_path / "picture.png", "ms", batch=16)
