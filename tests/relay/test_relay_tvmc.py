"""tvmc: from ONNX to outputs, the page's commands, what ``--help`` says, and bad options."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from relay_networks import HOST, close

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "relay.md").read_text()
COMMAND = Path(sys.executable).parent / "sparsewino-tvmc"


def tvmc(*arguments, folder=None):
    """A run of the command; what it prints of wishes for other packages is left out."""
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(relax_side, tmp_path):
    """A folder with what the page's example needs."""
    shutil.copy(relax_side.path("winograd"), tmp_path / "model.onnx")
    shutil.copy(relax_side.folder / "winograd.npz", tmp_path / "inputs.npz")
    return tmp_path


def test_the_commands_of_the_page(relax_side, folder):
    """On this CPU: the page names one that need not be here."""
    block = next(b for b in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "tvmc" in b)
    lines = block.replace("skylake-avx512", HOST.mcpu).splitlines()
    assert len(lines) == 2
    for line in lines:
        result = tvmc(*shlex.split(line)[1:], folder=folder)
        assert result.returncode == 0, result.stderr
    with np.load(folder / "outputs.npz") as outputs:
        got = outputs["output_0"]
    close(got, relax_side.outputs("winograd")["relax"])
    close(got, relax_side.outputs("winograd")["onnxruntime"], 1e-4)
    report = json.loads((folder / "plan.json").read_text())
    left = {layer["name"] for layer in report if layer["algorithm"] == "left"}
    assert left == {"first", "last"}, "those of few zeros"


def test_the_python_of_the_page(relax_side, folder):
    """Every block in its order, for the CPU that it names; ``params`` of a module that has some."""
    import onnx
    from tvm import relay

    shutil.copy(relax_side.folder / "weights.safetensors", folder / "pruned.safetensors")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    scope = {}
    here = Path.cwd()
    os.chdir(folder)
    try:
        for block in blocks:
            if "params" in block:
                plain = onnx.load(relax_side.path("plain"))
                made = relay.frontend.from_onnx(plain, freeze_params=False)
                scope["mod"], scope["params"] = made
            exec(block, scope)
    finally:
        os.chdir(here)
    assert (folder / "model.so").exists()
    assert {"body", "wide"} < {layer.name for layer in scope["plan"]}


def test_plain_networks_need_no_winograd_layers(relax_side, tmp_path):
    target = f"sparsewino, llvm -mcpu={HOST.mcpu}"
    model = relax_side.path("classifier")
    result = tvmc("compile", "--target", target, model, "-o", tmp_path / "net.tar")
    assert result.returncode == 0, result.stderr
    inputs, out = relax_side.folder / "classifier.npz", tmp_path / "out.npz"
    result = tvmc("run", "-i", inputs, "-o", out, tmp_path / "net.tar")
    assert result.returncode == 0, result.stderr
    with np.load(out) as outputs:
        close(outputs["output_0"], relax_side.outputs("classifier")["onnxruntime"], 1e-4)


def test_help_explains_the_options():
    result = tvmc("--help")
    assert result.returncode == 0
    for word in ("-min_sparsity", "-weights", "-report", "compile", "commands:"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-sparsity=0.5", "there is no option 'sparsity'"),
        ("-min_sparsity=half", "option min_sparsity: 'half' cannot be read"),
        ("-min_sparsity=2", "min_sparsity must be in"),
        ("-winograd_for_dense=maybe", "option winograd_for_dense"),
        ("-max_tile=3", "max_tile must be 2, 4 or 6"),
        ("-weights=missing.safetensors", "missing.safetensors"),
        ("-mcpu=no-such-cpu", "LLVM knows no CPU named 'no-such-cpu'"),
    ],
)
def test_options_that_cannot_be(relax_side, options, message):
    from tvm.driver.tvmc import TVMCException

    from tvm_sparsewino.relay import import_onnx
    from tvm_sparsewino.tvmc import sparsify_for_tvmc

    name, value = options.removeprefix("-").split("=")
    with pytest.raises(TVMCException, match="sparsewino: .*" + re.escape(message)):
        sparsify_for_tvmc(import_onnx(relax_side.path("winograd")), {}, **{name: value})


def test_a_report_that_cannot_be_written(relax_side, tmp_path):
    from tvm.driver.tvmc import TVMCException

    from tvm_sparsewino.relay import import_onnx
    from tvm_sparsewino.tvmc import sparsify_for_tvmc

    with pytest.raises(TVMCException, match="cannot be written"):
        mod = import_onnx(relax_side.path("winograd"))
        sparsify_for_tvmc(mod, {}, report=str(tmp_path / "none" / "plan.json"))


def test_installing_twice_changes_nothing():
    from tvm.driver.tvmc import compiler, frontends

    from tvm_sparsewino.tvmc import install

    install()
    before = compiler.target_from_cli, tuple(frontends.ALL_FRONTENDS)
    install()
    assert before == (compiler.target_from_cli, tuple(frontends.ALL_FRONTENDS))


def test_a_damaged_file_of_ours_is_an_error_of_tvmc(folder):
    (folder / "bad.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-2000])
    result = tvmc("compile", "--target", "sparsewino, llvm", "bad.onnx", folder=folder)
    assert result.returncode != 0
    assert not (folder / "module.tar").exists()
