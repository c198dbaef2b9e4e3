"""Nodes of PyTorch that TVM's importer gets wrong: as PyTorch means them, or refused by name."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from tvm import relax

from tvm_sparsewino import driver
from tvm_sparsewino.errors import ImportFailed
from tvm_sparsewino.relay_passes import import_torch

X = torch.linspace(-2, 3, 2 * 4 * 7 * 8).reshape(2, 4, 7, 8)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def imported(function):
    return driver.import_torch(Function(function), (X,))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: functional.avg_pool2d(x, 3, divisor_override=5), "divisor_override"),
        (lambda x: functional.avg_pool3d(x, 3, divisor_override=5), "divisor_override"),
        (lambda x: x.clamp(0.5, -0.5), "minimum of 0.5 above its maximum of -0.5"),
        (lambda x: (x * 9).int() / 4, "TVM makes int32 of it, PyTorch float32"),
    ],
)
def test_what_the_importer_gets_wrong_is_refused(function, message):
    with pytest.raises(ImportFailed, match=message):
        imported(function)


def test_another_shape_is_refused(monkeypatch):
    def flattened(node, importer):
        return importer.block_builder.emit(relax.op.flatten(importer.retrieve_args(node)[0]))

    monkeypatch.setattr(import_torch, "resize_converters", lambda: {"relu.default": flattened})
    flat, shape = X.numel(), ", ".join(map(str, X.shape))
    with pytest.raises(ImportFailed, match=rf"the shape \[{flat}\] of it, PyTorch \[{shape}\]"):
        imported(functional.relu)


def test_an_unknown_operator_is_still_named_by_tvm():
    with pytest.raises(ImportFailed, match="adaptive_max_pool2d"):
        imported(lambda x: functional.adaptive_max_pool2d(x, 3))


def test_a_batch_that_stays_open_is_no_fault():
    module = driver.import_torch(
        Function(lambda x: functional.avg_pool2d(x, 3).flatten(1)),
        (X,),
        ({0: torch.export.Dim("batch")},),
    )
    assert str(module["main"].params[0].ty.shape.values[0]) == "batch"
