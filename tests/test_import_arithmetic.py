"""Sums with a factor and scaled ELUs of PyTorch, against PyTorch.

Tolerance: 1e-6 of the largest output, a few roundings of float32; a factor left out is off by 0.04.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tvm_sparsewino import driver

X = torch.linspace(-2, 3, 2 * 3 * 5).reshape(2, 3, 5)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.add(x, x * x, alpha=3),
        lambda x: torch.add(x, 2, alpha=3),
        lambda x: torch.sub(x, x * x, alpha=0.5),
        lambda x: torch.sub(x, 2, alpha=3),
        lambda x: torch.rsub(x, x * x, alpha=2),
        lambda x: torch.rsub(x, 1.5, alpha=2),
        lambda x: torch.add((x > 0).int(), x, alpha=0.5),
        lambda x: x + 1 - x * x,
        functional.selu,
        lambda x: functional.elu(50 * x, 0.3),
        lambda x: functional.celu(x, 0.3),
    ],
)
def test_factors_count(function):
    module = driver.import_torch(Function(function), (X,))
    result = driver.compile(module, "llvm", num_threads=1)(X.numpy())
    expected = function(X).numpy()
    assert result.dtype == expected.dtype
    assert np.abs(result - expected).max() <= 1e-6 * np.abs(expected).max()
