"""The whole way of a structure: pruned in PyTorch, found when compiled, shown in the plan, run."""

import numpy as np
import pytest
import torch
from torch import nn

import tvm_sparsewino as sw
from tvm_sparsewino.nn import NativePruner, PruneConfig, convert

AVX2 = "llvm -mcpu=x86-64-v3"  # what a structure gains depends on the CPU
TOLERANCE = 2e-5  # of the largest output: two float32 convolutions of the same coefficients


@pytest.mark.parametrize("structure", ["balanced", "rows2", "rows4", "kernel"])
def test_a_pruned_structure_is_found_and_run(structure):
    net = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
    net = convert(net, 4).eval()
    config = PruneConfig(0.9, "white", end_step=1, structure=structure)
    NativePruner(net, config).step()
    x = torch.randn(1, 32, 24, 24)
    exe = sw.compile(sw.import_torch(net, (x,)), target=AVX2)
    assert [plan.structure for plan in exe.plan] == [structure] * 2
    assert all(structure in plan.reason for plan in exe.plan)
    expected = net(x).detach().numpy()
    error = np.abs(exe(x.numpy()) - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE
