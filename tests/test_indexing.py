"""Indices that count from the end, and those beyond the ends, of PyTorch and ONNX networks."""

import numpy as np
import pytest
import torch
from torch import nn

from tvm_sparsewino import driver
from tvm_sparsewino.errors import CompileFailed

X = torch.linspace(-2, 3, 2 * 4 * 7 * 8).reshape(2, 4, 7, 8)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def compiled(function):
    return driver.compile(driver.import_torch(Function(function), (X,)), "llvm", num_threads=1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, -1],
        lambda x: x[..., -2],
        lambda x: x[:, torch.tensor([-1, 0])],
        lambda x: x[:, :, torch.tensor([[-1, 0], [2, -7]])],
        lambda x: x[torch.tensor([-1, 0]), torch.tensor([-2, 3])],
        lambda x: x.flatten()[(x[0, 0, 0] > -1.99).long() - 1],
    ],
)
def test_negative_indices_count_from_the_end(function):
    assert np.array_equal(compiled(function)(X.numpy()), function(X).numpy())


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(5, 3)

    def forward(self, index):
        return self.rows(index)


def test_an_index_beyond_the_end_reads_no_other_memory():
    model = Table()
    program = driver.import_torch(model, (torch.tensor([0, 1, 2]),))
    result = driver.compile(program, "llvm", num_threads=1)(np.array([4, 1 << 40, -(1 << 40)]))
    rows = model.rows.weight.detach().numpy()
    assert np.array_equal(result[0], rows[4])
    assert all(any(np.array_equal(row, r) for r in rows) for row in result)


def test_what_tvm_cannot_compile_is_one_error():
    with pytest.raises(CompileFailed, match=r"TVM cannot compile the network: .*R\.topk"):
        compiled(lambda x: x.topk(2, 1)[0])
