"""The tests of the Relay line: ``make test-relay`` runs them where TVM has Relay.

The folder is left out elsewhere. ``RELAX_PYTHON`` names the interpreter of the environment that has
Relax; what it computes, the tests here compare with.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
REPAIRS = HERE / "hhb"
HAS_RELAY = importlib.util.find_spec("tvm.relay") is not None

if HAS_RELAY:
    sys.path[:0] = [str(REPAIRS), str(HERE.parent)]
    # Processes that tests start are repaired as they start.
    inherited = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPAIRS), *filter(None, [inherited])])
    import hhb_fixes

    hhb_fixes.apply()
else:
    collect_ignore_glob = ["*"]


def pytest_collection_modifyitems(items):
    """Warnings of TVM's own frontends about TVM are not ours to mend."""
    for item in items:
        if HERE in item.path.parents:
            for message in ("NDArray.asnumpy", "`mapping."):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))


@pytest.fixture(autouse=True)
def lowering():
    """Lower as a user's PassContext does; the default context is not seen by the repairs."""
    import tvm

    with tvm.transform.PassContext(opt_level=3):
        yield


class RelaxSide:
    """What the Relax line made: networks, inputs, outputs, plans."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return self.folder / f"{name}.onnx"

    def inputs(self, name):
        with np.load(self.folder / f"{name}.npz") as arrays:
            return dict(arrays)

    def outputs(self, name):
        with np.load(self.folder / f"{name}_outputs.npz") as arrays:
            return dict(arrays)

    def plan(self, name):
        """The plans of its convolutions."""
        plans = json.loads((self.folder / f"{name}.json").read_text())
        return [plan for plan in plans if "conv" in plan]


@pytest.fixture(scope="session")
def relax_python():
    """The interpreter of the environment with Relax."""
    python = os.environ.get("RELAX_PYTHON", "")
    assert python, "RELAX_PYTHON must name the interpreter that has Relax, as make test-relay does"
    return python


@pytest.fixture(scope="session")
def relax_side(relax_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("relax")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [relax_python, HERE / "relax_side.py", folder]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return RelaxSide(folder)
