"""Channels as numbers: ties and what is fixed."""

import numpy as np
import pytest
import torch
from torch import nn

from tvm_sparsewino.errors import PruneError
from tvm_sparsewino.nn.channels import ChannelMap, channel_map


def test_ties_reach_everything_and_fixing_goes_with_them():
    found = ChannelMap()
    a, b, c = found.new(3), found.new(3), found.new(3)
    found.fix(c[:1])
    found.tie(a, b)
    found.tie(c, b)
    assert np.array_equal(found.roots(a), found.roots(c))
    assert [found.is_fixed(r) for r in found.roots(a)] == [True, False, False]
    found.fix(b[2:])
    assert [found.is_fixed(r) for r in found.roots(a)] == [True, False, True]
    assert len(set(found.roots(a).tolist())) == 3


def test_channels_of_a_chain():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    found = channel_map(model, (torch.zeros(1, 3, 2, 2),))
    flat = np.repeat(found.roots(found.outputs["0"]), 4)
    assert np.array_equal(found.roots(found.inputs["3"]), flat)
    assert not any(found.is_fixed(r) for r in found.roots(found.outputs["0"]))
    assert all(found.is_fixed(r) for r in found.roots(found.outputs["3"]))


def test_a_forward_with_branches_is_refused():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(PruneError, match="Branches cannot be traced"):
        channel_map(Branches(), (torch.zeros(1),))
