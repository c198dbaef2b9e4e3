"""The performance page's tables are those of the kept record."""

import importlib.util
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
    text = pages.PAGE.read_text()
    assert pages.page(text, pages.RECORD, pages.NETWORKS) == text
    assert "| 64>64@56x56 |" in text
    assert "| resnet18, 1, 1 |" in text
