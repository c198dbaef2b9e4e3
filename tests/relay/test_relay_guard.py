"""A TVM whose code generator tells LLVM wrong things is refused, a repaired one is not."""

import os
import subprocess
import sys
from importlib import metadata

import pytest
from relay_networks import HOST

import tvm_sparsewino
from tvm_sparsewino._compat import check_aliasing
from tvm_sparsewino.errors import MissingExtra

PROGRAM = """
import sys, tvm
from tvm_sparsewino._compat import check_aliasing
try:
    check_aliasing(tvm.target.Target(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_what_the_tests_run_on_is_repaired():
    check_aliasing(HOST.tvm_target())


def test_an_unrepaired_build_is_refused():
    if not any(d.metadata["Name"] == "hhb-tvm" for d in metadata.distributions()):
        pytest.skip("the only build known to be wrong is hhb-tvm")
    target = f"llvm -mtriple=x86_64-linux-gnu -mcpu={HOST.mcpu}"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", PROGRAM, target]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("TargetError the code generator of this TVM")


@pytest.mark.parametrize("name", ["compile", "import_onnx", "load", "Session"])
def test_what_needs_relax_says_so(name):
    with pytest.raises(MissingExtra, match=r"is of the Relay line; this needs apache-tvm 0\.26"):
        getattr(tvm_sparsewino, name)
