from pathlib import Path

import pytest

from tvm_sparsewino.cli.main import main
from tvm_sparsewino.demo import run
from tvm_sparsewino.demo.report import Memory, Quality, Report, Timing

REPORT = Report(
    sparsity=0.875,
    max_rel_error=2e-6,
    psnr=(Quality("china.jpg", 25, 20.0, 28.88, 28.7),),
    timing=(Timing(1, 1000.0, 500.0, 200.0),),
    compile_s=9.5,
    memory={"torch": Memory(200.0, 500.0)},
)


@pytest.fixture
def calls(monkeypatch):
    seen = []

    def run_demo(*arguments, console, **named):
        seen.append((arguments, named))
        return REPORT

    monkeypatch.setattr(run, "run_demo", run_demo)
    return seen


def test_defaults_and_tables(calls, capsys):
    assert main(["demo"]) == 0
    assert calls == [((Path("out/demo"),), {"target": "native"})]
    printed = capsys.readouterr().out
    assert "87.5% zeros" in printed
    assert "5.00" in printed
    assert "out/demo" in printed


def test_options_are_handed_on(calls):
    assert main(["demo", "--out", "o", "--weights", "w", "--target", "llvm"]) == 0
    assert calls == [((Path("o"),), {"target": "llvm", "weights": Path("w")})]


def test_missing_weights_end_with_code_4_before_anything_is_written(tmp_path, capsys):
    out, weights = tmp_path / "out", tmp_path / "none.safetensors"
    assert main(["demo", "--out", str(out), "--weights", str(weights)]) == 4
    assert f"{weights}: cannot be read" in capsys.readouterr().err
    assert not out.exists()
