"""Without Relay everything imports, and asking for it gives one error that names the versions."""

import importlib
import importlib.util
import re
import subprocess
import sys

import pytest
import tvm

import tvm_sparsewino
from tvm_sparsewino import relay, tvmc
from tvm_sparsewino._compat import aliasing, installed, require_relay
from tvm_sparsewino.cli import tvmc as command
from tvm_sparsewino.errors import MissingExtra

PASSES = importlib.import_module("tvm_sparsewino.relay_passes.relay")
MESSAGE = re.escape(f"TVM {tvm.__version__} has no Relay") + ".*TVM 0.16 to 0.19"


@pytest.mark.parametrize(
    "ask",
    [
        require_relay,
        tvmc.install,
        lambda: relay.import_onnx("net.onnx"),
        lambda: relay.sparsify(None),
        lambda: PASSES.plan,
    ],
)
def test_one_error_names_the_versions(ask):
    with pytest.raises(MissingExtra, match=MESSAGE):
        ask()


def test_names_that_do_not_exist():
    with pytest.raises(AttributeError, match="nothing"):
        _ = PASSES.nothing


def test_the_command_says_so_and_helps(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sparsewino-tvmc", "--help"])
    assert command.main() == 5
    captured = capsys.readouterr()
    assert "-min_sparsity" in captured.out
    assert re.search(MESSAGE, captured.err)


def test_importing_needs_no_tvm():
    program = "import sys, tvm_sparsewino.relay_passes; print('tvm' in sys.modules)"
    command_line = [sys.executable, "-c", program]
    result = subprocess.run(command_line, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


LOAD = "%1 = load <4 x float>, ptr %0, align 4, !tbaa !1\n!1 = !{!2, !2, i64 0}\n"
TREE = """\
!2 = !{!"buffer.w16.b0", !3, i64 0}
!3 = !{!"buffer.w32.b0", !4, i64 0}
!4 = !{!"buffer", !9, i64 0}
!6 = !{!"buffer.w4.b20", !3, i64 0}
!7 = !{!"buffer.w4.b0", !2, i64 0}
!8 = !{!"other.w4.b20", !9, i64 0}
"""


@pytest.mark.parametrize(("stored", "may_meet"), [(6, False), (7, True), (4, True), (8, True)])
def test_accesses_that_are_described_as_apart(stored, may_meet):
    store = f"store float %2, ptr %3, align 4, !tbaa !5\n!5 = !{{!{stored}, !{stored}, i64 0}}\n"
    assert aliasing.accesses_may_meet(LOAD + store + TREE) is may_meet


def test_no_tvm_at_all(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="No module named 'tvm'"):
        installed.tvm_folder()


def test_what_needs_relax_says_so_on_the_other_line(monkeypatch):
    monkeypatch.setattr(installed, "IS_RELAX_LINE", False)
    with pytest.raises(MissingExtra, match="is of the Relay line; this needs apache-tvm 0"):
        _ = tvm_sparsewino.load
