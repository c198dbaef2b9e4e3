"""The package's networks as ONNX, dense and pruned by zeros in their weights: compiled, compared
with ONNX Runtime.
"""

import pytest
from network_cases import NARROW, TOLERANCE, narrow
from onnx_models import relative_error, run_ort

from tvm_sparsewino import driver
from tvm_sparsewino.nn.interchange import answer, write_onnx


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("name", NARROW)
def test_compiled_is_onnx_runtime(name, density, tmp_path):
    model, x = narrow(name, density, winograd=False)
    path = tmp_path / "net.onnx"
    write_onnx(model, x.numpy(), path)
    exe = driver.compile(driver.import_onnx(path), "llvm", num_threads=1)
    got, want = exe(x.numpy()), run_ort(path, x.numpy())
    assert relative_error(got, want) < TOLERANCE
    assert relative_error(got, answer(model, x.numpy())) < TOLERANCE
