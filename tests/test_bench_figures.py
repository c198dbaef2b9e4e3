"""The figures of records whose answers were worked out by hand."""

import json
import math

import pytest
from bench_records import LAYER, OTHER, dense, direct, peer, race_line, raced, result, sparse

from tvm_sparsewino.bench import figures
from tvm_sparsewino.bench.shapes import Layer

MS = "ms"


def one(*results, **place):
    return raced(race_line(*results, **place))


def test_ours_is_what_the_planner_chooses_and_the_best_tile():
    (race,) = one(
        dense(2, 5.0),
        dense(4, 3.0),
        sparse(2, 0.1, 2.0),
        sparse(4, 0.1, 1.0),
        sparse(4, 1.0, 9.0, chosen=False),
    ).values()
    assert figures.ours(race, MS) == {(2, 0.1): 2.0, (4, 0.1): 1.0, (4, 1.0): 3.0}
    assert figures.best_tile(race, 0.1, MS) == (4, 1.0)
    assert figures.best_tile(race, 0.1, "fastest") == (4, 0.8)
    assert figures.best_tile(race, 0.7, MS) is None


def test_speedups_take_the_fastest_dense_rival_and_leave_others_aside():
    lines = [
        race_line(peer("torch", 20), peer("openvino", 16), peer("ncnn", 1), sparse(4, 0.1, 2.0)),
        race_line(peer("onnxruntime", 6), sparse(4, 0.1, 3.0), layer=OTHER),
        race_line(peer("torch", 30), sparse(4, 0.1, 3.0), layer=Layer(96, 96, 212, 320)),
        race_line(peer("torch", 99), sparse(4, 0.1, 3.0), threads=2),
        race_line(sparse(4, 0.1, 3.0), layer=Layer(256, 256, 14, 14)),
    ]
    found = figures.speedups(raced(*lines), figures.DENSE_RIVALS, 1, 1, MS)
    assert found["headline"].by_layer == {str(LAYER): 8.0, str(OTHER): 2.0}
    assert found["headline"].geomean == pytest.approx(4.0)
    assert found["headline"].least == (str(OTHER), 2.0)
    assert found["others"].by_layer == {"96>96@212x320": 10.0}


def test_deepsparse_counts_with_the_better_of_its_two():
    races = one(peer("deepsparse", 6.0), peer("deepsparse-sparse90", 5.0), sparse(2, 0.1, 1.0))
    found = figures.speedups(races, figures.SPARSE_RIVALS, 1, 1, MS)["headline"]
    assert found.by_layer == {str(LAYER): 5.0}


def test_thread_gain():
    races = raced(
        race_line(sparse(2, 0.1, 3.0)),
        race_line(sparse(2, 0.1, 2.0), threads=2),
        race_line(sparse(2, 0.1, 3.0), layer=OTHER),
    )
    assert figures.thread_gain(races, 1, MS).by_layer == {str(LAYER): 1.5}
    assert math.isnan(figures.thread_gain(races, 16, MS).geomean)


def test_dense_choice_is_what_the_planner_took():
    races = raced(
        race_line(peer("torch", 4.0), direct(5.0, "dense_winograd F(4,3)"), dense(4, 3.0)),
        race_line(peer("torch", 4.0), direct(5.0), layer=OTHER),
    )
    found = figures.dense_choices(races, 1, 1, MS)
    assert found.by_layer == {str(LAYER): 0.75, str(OTHER): 1.25}


def test_slower_than_our_dense_kernel_for_the_same_weights():
    races = one(
        dense(2, 2.0),
        dense(4, 1.0),
        sparse(2, 0.5, 2.09),  # within 5 %, however fast F(4,3) is
        sparse(4, 0.5, 1.06),
        sparse(4, 1.0, 3.0, chosen=False),
    )
    assert figures.slower_than_dense(races, MS) == [
        (f"{LAYER} batch 1 threads 1 F(4,3) 0.5", pytest.approx(1.06))
    ]


def test_time_must_not_rise_with_fewer_nonzeros():
    races = one(
        dense(2, 4.0),
        sparse(2, 1.0, 9.0, chosen=False),
        sparse(2, 0.1, 1.0),
        sparse(2, 0.5, 3.0),
        sparse(2, 0.05, 1.2),
        sparse(2, 0.02, 1.25),
    )
    assert figures.not_monotonic(races, MS) == [
        (f"{LAYER} batch 1 threads 1 F(2,3) 0.1 to 0.05", pytest.approx(1.2))
    ]


def test_errors_by_tile_and_by_peer():
    races = one(
        {**sparse(4, 0.1, 1.0), "error": 3e-6},
        {**dense(4, 1.0), "error": 5e-6},
        {**peer("torch", 1.0), "error": 1e-7},
        direct(1.0),
    )
    expected = {"F(4,3)": 5e-6, "torch": 1e-7, "dense_direct": 1e-6}
    assert figures.largest_errors(races) == expected


def test_bits_are_compared_over_threads():
    def line(checksum, threads, **place):
        return race_line(sparse(2, 0.1, 1.0, checksum=checksum), threads=threads, **place)

    same = raced(line(7, 1), line(7, 2), line(8, 1, batch=16))
    assert figures.different_bits(same) == []
    other = raced(line(7, 1), line(6, 2))
    name = f"{LAYER} batch 1 threads 2 sparse_winograd F(2,3) 0.1"
    assert figures.different_bits(other) == [name]


def test_load_beside_the_benchmark_is_more_than_its_threads():
    assert figures.busiest(raced(race_line(load=1.2), race_line(load=1.5, threads=2))) == (
        pytest.approx(0.2)
    )
    assert figures.summarise(raced(race_line(load=0.1)))["load beside the benchmark"] == 0.0


def test_summary_is_plain_json():
    races = raced(
        race_line(peer("torch", 4.0), direct(5.0), dense(4, 3.0), sparse(4, 0.1, 1.0)),
        race_line(result("torch", 4.0), threads=2),
    )
    values = json.loads(json.dumps(figures.summarise(races), allow_nan=False))
    here = values["batch 1, threads 1"]
    assert here["over the fastest dense peer"]["geomean"] == 4.0
    assert here["over DeepSparse"]["geomean"] is None
    assert values["batch 1, threads 2"]["over the fastest dense peer"]["by_layer"] == {}
    assert values["slower than our own dense"] == []
