"""The table of training runs is made from their records, and says what they say."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def pages():
    path = ROOT / "benchmarks" / "pruning_page.py"
    spec = importlib.util.spec_from_file_location("pruning_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(seed, method, accuracy, dense=99.0, **changes):
    prune = {
        "method": method,
        "tile": 4,
        "sparsity": 0.9,
        "options": {},
        "keep": [],
        "filters": 0.0,
    }
    return {
        "experiment": {
            "network": "lenet5",
            "network_options": {},
            "data": "mnist",
            "image_size": None,
            "seed": seed,
            "batch": 128,
            "shift": 0,
            "flip": False,
            "crop": False,
            "precision": "float32",
            "device": "cpu",
            "data_folder": None,
            "save_every": 1,
            "cost": False,
            "dense": {"lr": 0.1},
            "tune": {"lr": 0.05, "winograd_lr": 1.0, "epochs": 2.0, "distil": 0.0},
            "prune": {**prune, **changes},
        },
        "accuracy": accuracy,
        "zeros": {"conv1": 0.89, "all": 0.901},
        "dense": {"accuracy": dense, "cpu_seconds": 100.0, "seconds": 900.0},
        "start": {"cpu_seconds": 30.0, "seconds": 40.0},
        "tune": {"cpu_seconds": 120.0, "seconds": 160.0},
        "machine": {"device": "cpu"},
        "cost": {"time_ratio": 1.5 + seed / 10, "memory_ratio": 1.25 if seed < 3 else None},
    }


def test_the_page_is_what_the_records_say(pages):
    text = pages.PAGE.read_text()
    rates = pages.read_records(pages.RATES)
    assert rates and pages.page(text, pages.read(pages.RECORDS), rates) == text


def test_stable_rates_with_the_losses_that_bound_them(pages):
    trials = [[0.0, 0.5, 0.45], [0.1, 0.5, 0.25], [0.2, 0.5, float("inf")]]
    found = [
        {"method": "white", "rate": 0.1, "trials": trials, "bounded": True},
        {"method": "authors", "rate": 0.1, "trials": trials[:2], "bounded": False},
        {"method": "gradient", "rate": 0.0, "trials": trials[::2], "bounded": True},
    ]
    lines = pages.rates_table(found).splitlines()[2:]
    assert lines[0] == "| `white` | 0.1 | 0.25 | inf | 0.45 |"
    assert lines[1] == "| `authors` | 0.1 or more | 0.25 | not tried | 0.45 |"
    assert lines[2] == "| `gradient` | 0 |  | inf | 0.45 |"


def test_differences_are_paired_by_seed(pages):
    runs = [record(s, "activation", a) for s, a in ((1, 98.9), (2, 99.2), (3, 99.2))]
    trained_on = [record(s, "continued", a) for s, a in ((3, 99.2), (1, 99.1), (2, 99.3))]
    lines = pages.table([*runs, *trained_on, record(1, "dense", 99.0)]).splitlines()
    assert len(lines) == 3
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:4] == ["lenet5, mnist", "`activation`, 4", "90.1 % (89.0)", "1, 2, 3"]
    assert cells[4:7] == ["99.00", "99.20", "99.10"]
    # Differences -0.1, 0.2, 0.2: mean 0.1, deviation 0.1732, times 4.303 / sqrt 3.
    assert cells[7] == "+0.10 (-0.33 to +0.53)"
    # -0.2, -0.1, 0: mean -0.1, deviation 0.1.
    assert cells[8] == "-0.10 (-0.35 to +0.15)"
    assert cells[9:] == ["0.1 / 0.05", "1.50", "1.70, 1.25"]


def test_a_network_is_compared_on_images_of_its_size(pages):
    pruned, trained_on = record(1, "white", 98.0), record(1, "continued", 99.5)
    assert "99.50" in pages.table([pruned, trained_on])
    trained_on["experiment"]["image_size"] = 64
    assert "99.50" not in pages.table([pruned, trained_on])


def test_other_options_are_other_rows(pages):
    first, second = record(1, "activation", 98.0), record(1, "activation", 97.0, keep=["stem"])
    third = record(1, "activation", 97.0, sparsity=0.95)
    elsewhere = copy.deepcopy(record(2, "activation", 98.0))
    elsewhere["experiment"]["data_folder"] = "data"
    lines = pages.table([first, second, third, elsewhere]).splitlines()[2:]
    assert len(lines) == 3
    # In the order of sparsity, whatever the order of the records.
    assert "| 1, 2 |" in lines[0] and "without stem" in lines[1]
    assert pages.table([third, second, elsewhere, first]).splitlines()[4] == lines[2]
    # One pair has no interval, and nothing to compare with leaves its cell empty.
    assert "| -2.00 |  |" in lines[1]


def test_rows_that_differ_in_what_no_cell_shows_say_so(pages):
    narrow, wide = record(1, "white", 98.0), record(1, "white", 98.5)
    wide["experiment"]["network_options"] = {"widths": [4, 8]}
    longer = copy.deepcopy(wide)
    longer["experiment"]["tune"]["epochs"] = 3.0
    elsewhere = record(1, "white", 97.0)
    elsewhere["experiment"]["data"] = "digits"
    lines = pages.table([narrow, wide, longer, elsewhere]).splitlines()[2:]
    labels = sorted(line.split(" | ")[1] for line in lines)
    assert labels == [
        "`white`, 4",  # the only one on its data
        "`white`, 4, network_options.widths=[4, 8], tune.epochs=2.0",
        "`white`, 4, network_options.widths=[4, 8], tune.epochs=3.0",
        "`white`, 4, tune.epochs=2.0",
    ]


def test_untrained_rows_do_not_tell_how_they_would_be_trained(pages):
    runs = [record(1, "white", 98.0), record(1, "white", 97.0, sparsity=0.8)]
    for run, distil in zip(runs, (0.0, 0.5), strict=True):
        run["experiment"]["tune"] |= {"epochs": 0.0, "distil": distil, "momentum": distil}
    labels = [line.split(" | ")[1] for line in pages.table(runs).splitlines()[2:]]
    assert labels == ["`white`, 4", "`white`, 4"]


def test_removed_filters_are_told(pages):
    runs = [record(1, "one-shot", 98.0), record(1, "one-shot", 97.0, filters=0.3)]
    labels = [line.split(" | ")[1] for line in pages.table(runs).splitlines()[2:]]
    assert sorted(labels) == ["`one-shot`, 4", "`one-shot`, 4, 30% of the filters removed"]


def test_schedules_are_told_of_methods_that_have_one(pages):
    runs = [
        record(1, "activation", 98.0, start=0.0),
        record(1, "winograd-relu", 98.0, start=0.25),
        record(1, "one-shot", 98.0, start=0.0),
    ]
    cells = pages.distinctions([r["experiment"] for r in runs])
    assert cells == [", prune.start=0.0", ", prune.start=0.25", ""]


def test_intervals_of_many_runs_use_the_normal_quantile(pages):
    assert pages.interval([0.0, 1.0] * 8) == "+0.50 (+0.25 to +0.75)"
    assert pages.interval([1.0]) == "+1.00"


def test_records_older_than_a_setting_are_of_the_same_row(pages, tmp_path):
    old, new = record(1, "white", 98.0), record(2, "white", 98.5)
    del old["experiment"]["prune"]["filters"]
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(old)}\n{json.dumps(new)}\n")
    assert "| 1, 2 |" in pages.table(pages.read(tmp_path)).splitlines()[2]


def test_cost_is_left_out_where_it_was_not_measured(pages):
    assert pages.cost([{"cost": None}]) == ""
    assert pages.cost([record(3, "activation", 98.0)]) == "1.80"


def test_tiles_of_several_kernel_sizes(pages):
    assert pages.tile(4) == "4" and pages.tile("auto") == "auto"
    assert pages.tile({"5": 4, "7": 2}) == "F(4,5) and F(2,7)"


def test_time_is_of_the_device(pages):
    one = record(1, "activation", 98.0)
    assert pages.time_ratio(one) == 1.5
    one["machine"]["device"] = "cuda"
    assert pages.time_ratio(one) == pytest.approx(200 / 900)
