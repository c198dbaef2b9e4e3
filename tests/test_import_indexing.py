"""PyTorch's indexing with tensors, against PyTorch; results are copies, so bits have to agree."""

import numpy as np
import pytest
import torch
from torch import nn

from tvm_sparsewino import driver

X = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
ROWS, COLUMNS = torch.tensor([3, 0, 1, 2]), torch.tensor([1, 1, 3, 0])
PLANES = torch.tensor([[0], [2]])


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, :, ROWS, COLUMNS],
        lambda x: x[:, :, ROWS[None], COLUMNS[:, None]],
        lambda x: x[:, :, ROWS[:, None], COLUMNS[None]],
        lambda x: x[:, PLANES, :, COLUMNS],
        lambda x: x[:, PLANES, ROWS],
        lambda x: x[:, PLANES, ROWS, COLUMNS],
        lambda x: x[torch.tensor([1, 0, 1, 1]), :, ROWS],
        lambda x: x[:, :, -1 - ROWS, COLUMNS],
        lambda x: x[:, :, ROWS],
        lambda x: x[torch.tensor([1]), torch.tensor([2]), ROWS, COLUMNS],
        lambda x: x[torch.tensor([1, 0]), torch.tensor([[2], [0]])],
    ],
    ids=[
        *("pairs", "columns down", "rows down", "apart", "in front", "three", "first and third"),
        *("from the end", "one", "all", "leading"),
    ],
)
def test_places_are_those_of_pytorch(function):
    module = driver.import_torch(Function(function), (X,))
    result = driver.compile(module, "llvm", num_threads=1)(X.numpy())
    assert np.array_equal(result, function(X).numpy())
