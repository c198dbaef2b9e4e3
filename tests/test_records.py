"""The file of records: what comes back, what is ignored, what a crash or an editor leaves."""

import dataclasses
import json

import pytest

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.errors import TuneError
from tvm_sparsewino.records import (
    TUNED,
    Record,
    Records,
    append_record,
    layer_key,
    read_records,
    tuned_fields,
)

SHAPE = ConvShape(1, 8, 9, 9, 16, 3, (1, 1, 1, 1))
PLAN = LayerPlan("a", SHAPE, 0.1, "sparse_winograd", 4, 3, 16, 8, 2, reason="because")
KEY = layer_key(SHAPE, 4, 0.1, "unstructured", "llvm -mcpu=znver3", 1)
RECORD = Record(KEY, "k1", tuned_fields(PLAN), 1e-3, 1.1e-3, 1.5e-3, 7)


def test_a_plan_is_what_is_tuned_and_what_is_said_about_it():
    said = {"name", "conv", "density", "reason", "flops_direct", "flops_done", "cost_cycles"}
    assert {f.name for f in dataclasses.fields(LayerPlan)} == said | set(TUNED)
    assert tuned_fields(PLAN)["panel_vectors"] == 3


def test_records_come_back_and_the_last_one_counts(tmp_path):
    path = tmp_path / "records.jsonl"
    faster = dataclasses.replace(RECORD, seconds=5e-4)
    other = dataclasses.replace(RECORD, key=dataclasses.replace(KEY, threads=2))
    for record in (RECORD, other, faster):
        append_record(path, record)
    assert len(path.read_text().splitlines()) == 3
    found = read_records(path, "k1")
    assert found.find(KEY) == faster
    assert found.find(other.key) == other
    assert found.why_not(KEY) == ""


@pytest.mark.parametrize(
    ("density", "same"), [(0.1004, True), (0.0996, True), (0.106, False), (0.0, False)]
)
def test_densities_count_to_two_digits(density, same):
    key = layer_key(SHAPE, 4, density, "unstructured", "llvm -mcpu=znver3", 1)
    assert (Records([RECORD], "k1").find(key) is not None) == same


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"target": "llvm -mcpu=skylake-avx512"}, "a record for 'llvm -mcpu=znver3' is ignored"),
        ({"threads": 2}, "a record for 1 threads is ignored"),
        ({"structure": "rows2"}, ""),
        ({"weights": "spatial"}, ""),
        ({"conv": dataclasses.replace(SHAPE, n=2)}, ""),
    ],
)
def test_records_of_something_else_are_not_found(change, note):
    records, key = Records([RECORD], "k1"), dataclasses.replace(KEY, **change)
    assert records.find(key) is None
    assert records.why_not(key) == note


def test_records_of_other_kernels_are_not_found_whatever_their_plan(tmp_path):
    path = tmp_path / "records.jsonl"
    append_record(path, dataclasses.replace(RECORD, plan={"unroll": 3}))
    records = read_records(path, "k2")
    assert records.find(KEY) is None
    assert records.why_not(KEY) == "a record of other kernels (k1) is ignored"


def test_half_a_line_at_the_end_is_passed_over_and_replaced(tmp_path):
    path = tmp_path / "records.jsonl"
    append_record(path, RECORD)
    whole = path.read_text()
    path.write_text(whole + whole[:100])
    assert read_records(path, "k1").find(KEY) == RECORD
    second = dataclasses.replace(RECORD, candidates=9)
    append_record(path, second)
    assert path.read_text() == whole + second.to_line() + "\n"
    assert read_records(path, "k1").find(KEY) == second


def test_a_whole_line_without_its_end_counts(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(RECORD.to_line())
    assert read_records(path, "k1").find(KEY) == RECORD
    append_record(path, dataclasses.replace(RECORD, candidates=9))
    assert path.read_text().startswith(RECORD.to_line() + "\n{")


def changed(**fields):
    return json.dumps({**json.loads(RECORD.to_line()), **fields})


LAYER = json.loads(RECORD.to_line())["layer"]
DAMAGED = {
    "not JSON": "{",
    "not a 'tvm-sparsewino tuning record'": "{}",
    "not a 'tvm-sparsewino tuning record' ": "[1]",
    "version 9, this build reads 1": changed(version=9),
    "damaged: no 'layer'": changed().replace('"layer"', '"was"'),
    "unexpected keyword argument 'extra'": changed(extra=1),
    "damaged: ": changed(layer=3),
    "damaged: unhashable": changed(layer={**LAYER, "threads": [1]}),
    "ConvShape: unknown fields ['x']": changed(layer={**LAYER, "conv": {"x": 1}}),
    "must be positive numbers of seconds": changed(seconds=-1.0),
    "'candidates' a number": changed(candidates="many"),
    "the plan has the fields ['m']": changed(plan={"m": 2}),
    "unknown algorithm 'magic'": changed(plan={**RECORD.plan, "algorithm": "magic"}),
    "damaged: '<' not": changed(plan={**RECORD.plan, "m": "2"}),
}


@pytest.mark.parametrize("message", DAMAGED)
def test_a_damaged_line_is_named(tmp_path, message):
    path = tmp_path / "records.jsonl"
    path.write_text(f"{RECORD.to_line()}\n{DAMAGED[message]}\n{RECORD.to_line()}\n")
    with pytest.raises(TuneError) as caught:
        read_records(path, "k1")
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message.strip() in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_files_that_cannot_be_read_or_written_are_named(tmp_path, content):
    path = tmp_path / "records.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TuneError, match=r"records.jsonl: cannot be read"):
        read_records(path, "k1")
    with pytest.raises(TuneError, match=r"cannot be written: Is a directory"):
        append_record(tmp_path, RECORD)
