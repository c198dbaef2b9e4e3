"""The package's networks from PyTorch, dense and pruned: compiled, compared with PyTorch."""

import pytest
import torch
from network_cases import NARROW, TOLERANCE, narrow
from onnx_models import relative_error

from tvm_sparsewino import driver


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("name", NARROW)
def test_compiled_is_pytorch(name, density):
    model, x = narrow(name, density)
    exe = driver.compile(driver.import_torch(model, (x,)), "llvm", num_threads=1)
    with torch.no_grad():
        want = model(x).numpy()
    assert relative_error(exe(x.numpy()), want) < TOLERANCE
    assert "left" not in {plan.algorithm for plan in exe.plan}
