"""Graphs of networks: Winograd layers are one node each."""

import pytest
import torch
from torch import nn

from tvm_sparsewino.nn import WinogradConv2d
from tvm_sparsewino.nn.tracing import trace


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(WinogradConv2d(2, 3, 3, m=2, padding=1), nn.ReLU())

    def forward(self, x):
        return self.inner(x) + 1


def test_winograd_layers_stay_whole():
    model = Net()
    traced = trace(model)
    calls = [str(n.target) for n in traced.graph.nodes if n.op == "call_module"]
    assert calls == ["inner.0", "inner.1"]
    assert type(traced).__name__ == "Net"
    assert traced.get_submodule("inner.0") is model.inner[0]
    x = torch.rand(1, 2, 6, 6)
    assert torch.equal(traced(x), model(x))


def test_a_forward_that_cannot_be_traced_says_so():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(torch.fx.proxy.TraceError):
        trace(Branches())
