"""The performance pages' tables are those of the kept records."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def load():
    path = ROOT / "benchmarks" / "performance_page.py"
    spec = importlib.util.spec_from_file_location("performance_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_record_says():
    pages = load()
    for written, layers, networks in pages.PAGES:
        text = written.read_text()
        assert pages.page(text, layers, networks) == text
        assert "| 64>64@56x56 |" in text
        assert "| resnet18, 1, 1 |" in text


def test_networks_are_compared_by_medians_and_by_fastest_calls(tmp_path):
    rows = {
        "openvino": (60.0, 40.0, 300),
        "torch": (50.0, 45.0, 500),
        "ours 1": (20.0, 18.0, 200),
        "ours 0.1": (10.0, 5.0, 100),
    }
    results = [
        {"name": name, "ms": ms, "fastest": fastest, "memory": {"peak": peak}}
        for name, (ms, fastest, peak) in rows.items()
    ]
    results[-1]["asked_density"] = 0.1
    race = {"kind": "network", "network": "net", "batch": 1, "threads": 2, "size": 224}
    record = tmp_path / "networks.jsonl"
    run = {"version": 1, "kind": "run"}
    lines = (run, {"version": 1, **race, "results": results})
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    head, _, row = load().network_table(record).splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert (cells["x dense"], cells["x dense, fastest calls"]) == ("5.0", "8.0")
    assert cells["x DeepSparse 90 %"] == ""
    assert "100 / 200 / 300" in row
