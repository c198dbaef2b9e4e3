"""What ``import tvm`` learns about us, in both import orders, each in a process of its own."""

import subprocess
import sys
import textwrap

import pytest
from tvm.ir import Op
from tvm.relax import pipeline

from tvm_sparsewino import _autoload

CHECK = """
import sys
from tvm.ir import Op
from tvm import relax
for name in (
    "sparsewino.winograd_conv2d",
    "sparsewino.sparse_winograd_conv2d",
    "sparsewino.direct_conv2d",
):
    for attribute in ("FInferType", "FLegalize", "FPurity"):
        assert Op.get(name).has_attr(attribute), (name, attribute)
relax.get_pipeline("sparsewino")
"""

# The package's first module to import TVM may be any of these; TVM then calls back into it.
FIRST = (
    "import tvm",
    "import tvm_sparsewino, tvm_sparsewino._compat",
    "from tvm_sparsewino.relay_passes import SparsifyConvs",
    "import tvm_sparsewino.driver",
)


def python(program):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("first", FIRST)
def test_registered_whatever_is_imported_first(first):
    result = python(f"{first}\nimport tvm\n{CHECK}")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_second_call_changes_nothing():
    registered = pipeline.PIPELINE_MAP["sparsewino"]
    infer = Op.get("sparsewino.winograd_conv2d").get_attr("FInferType")
    _autoload.autoload()
    assert pipeline.PIPELINE_MAP["sparsewino"] is registered
    assert Op.get("sparsewino.winograd_conv2d").get_attr("FInferType").same_as(infer)


def test_by_hand_where_autoloading_is_off_and_light():
    """It runs on every ``import tvm`` of every user of the environment."""
    result = python(
        f"""
        import os, sys
        os.environ["TVM_DEVICE_BACKEND_AUTOLOAD"] = "0"
        import tvm
        from tvm.ir import Op
        assert "sparsewino.winograd_conv2d" not in Op.list_op_names()
        before = set(sys.modules)
        from tvm_sparsewino._autoload import autoload
        autoload()
        print(sorted(set(sys.modules) - before))
        exec({CHECK!r})
        """
    )
    loaded = [
        "tvm_sparsewino",
        *(f"tvm_sparsewino.{m}" for m in ("_autoload", "_version", "constants", "errors")),
    ]
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, str(loaded), "")
