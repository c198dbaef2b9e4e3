"""The units in which methods train the coefficients."""

import copy

import pytest
import torch
from torch import nn

from tvm_sparsewino.errors import ConfigError, PruneError
from tvm_sparsewino.nn import NativePruner, PruneConfig, WinogradConv2d, convert
from tvm_sparsewino.nn.parametrise import parametrise


def gradient_of_u(layer, x):
    """The gradient of a fixed loss in U itself."""
    u = layer.winograd_weight.detach().requires_grad_()
    plain = copy.deepcopy(layer)
    parametrise(nn.Sequential(plain), "plain")
    y = torch.func.functional_call(plain, {"weight": u}, (x,))
    return torch.autograd.grad(y.square().mean(), u)[0]


@pytest.mark.parametrize(("kind", "power"), [("plain", 0.0), ("gradient", 1.5), ("white", None)])
def test_a_step_of_sgd_divides_the_gradient_as_the_method_says(kind, power):
    # float64, so that the only difference is the order of two roundings.
    layer = WinogradConv2d(3, 4, 3, 4, padding=1, dtype=torch.float64)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before, gradient = layer.winograd_weight.detach().clone(), gradient_of_u(layer, x)
    parametrise(nn.Sequential(layer), kind)
    assert torch.allclose(layer.winograd_weight, before, rtol=1e-14, atol=0)
    optimizer = torch.optim.SGD([layer.weight], lr=0.5)
    layer(x).square().mean().backward()
    optimizer.step()
    importance = torch.from_numpy(layer.algorithm.importance()).view(-1, 1, 1)
    relative = importance / importance.min()
    divisor = importance**2 if power is None else relative**power
    want = before - 0.5 * gradient / divisor
    assert torch.allclose(layer.winograd_weight, want, rtol=1e-9, atol=1e-12)


def test_kept_changes_nothing_and_the_pruner_applies_it():
    model = convert(nn.Sequential(nn.Conv2d(3, 4, 3)), 2)
    scale = model[0].scale.clone()
    parametrise(model, "kept")
    assert torch.equal(model[0].scale, scale)
    NativePruner(model, PruneConfig(criterion="white", parameters="gradient"))
    assert not torch.equal(model[0].scale, scale)


def test_bad_requests():
    model = convert(nn.Sequential(nn.Conv2d(3, 4, 3)), 2)
    with pytest.raises(ConfigError, match=r"parameters must be .* got 'raw'"):
        parametrise(model, "raw")
    with pytest.raises(PruneError, match="no Winograd layer"):
        parametrise(nn.Sequential(), "plain")
