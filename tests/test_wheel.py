"""The built wheel, installed in a clean environment outside of the tree, works without it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    "tvm_sparsewino": "tvm_sparsewino",
    "relay_passes": "tvm_sparsewino/relay_passes",
    "schedules": "tvm_sparsewino/schedules",
}

REGISTERED = """
from tvm.ir import Op
from tvm.relax import get_pipeline
Op.get("sparsewino.winograd_conv2d")
Op.get("sparsewino.sparse_winograd_conv2d")
get_pipeline("sparsewino")
print(tvm_sparsewino.__file__)
"""

COMPILE = """
import numpy as np
import torch
import tvm_sparsewino as sw
from tvm_sparsewino.nn import convert

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()).eval()
x = torch.rand(1, 3, 9, 10)
with torch.no_grad():
    expected = net(x).numpy()
    net = convert(net, tile=2, example=x)
got = sw.compile(sw.import_torch(net, (x,)), target="native")(x.numpy())
print(np.abs(got - expected).max() < 1e-5 * np.abs(expected).max())
"""


def run(*command, cwd):
    """Run outside of the tree and without its paths; give what was printed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources so that the tree stays clean."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for folder in SOURCES:
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-index")
    run(*pip, "--no-build-isolation", "--wheel-dir", str(dist), str(source), cwd=dist)
    (built,) = dist.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A virtual environment with the wheel; its dependencies are lent by the running one.

    The path to them is added without running their .pth files, so the editable install of the
    tree stays out of it.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", str(python))
    run(*pip, "install", "--no-deps", "--no-index", str(wheel), cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    lent = Path(site.stdout.strip()) / "lent.pth"
    lent.write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_wheel_holds_every_source_file_and_nothing_else(wheel):
    expected = {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in SOURCES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = {Path(name).name for name in archive.namelist() if "/licenses/" in name}
    assert held == expected
    assert licences == {"LICENSE", "LICENSE.ffdnet"}


@pytest.mark.parametrize(
    "order", ["import tvm, tvm_sparsewino", "import tvm_sparsewino, tvm"], ids=["last", "first"]
)
def test_operators_are_registered_whichever_is_imported_first(environment, order):
    result = run(environment / "bin" / "python", "-c", order + REGISTERED, cwd=environment)
    assert Path(result.stdout.strip()).is_relative_to(environment)
    assert result.stderr == ""


def test_command_is_installed(environment):
    result = run(environment / "bin" / "sparsewino", "--help", cwd=environment)
    assert "demo" in result.stdout


def test_a_small_network_is_compiled_and_right(environment):
    result = run(environment / "bin" / "python", "-c", COMPILE, cwd=environment)
    assert result.stdout.strip().splitlines()[-1] == "True"
