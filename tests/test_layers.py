"""Winograd layers: made from convolutions, masked, scaled, saved; the same function as those."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from layer_cases import error
from torch import nn

from tvm_sparsewino import reference
from tvm_sparsewino.errors import ConfigError, MissingExtra, ShapeError, WeightsError
from tvm_sparsewino.nn import functional
from tvm_sparsewino.nn.layers import WinogradConv2d
from tvm_sparsewino.nn.padding import four_sides


def conv_and_layer(m=4, **kwargs):
    torch.manual_seed(11)
    conv = nn.Conv2d(6, 4, **{"kernel_size": 3, "padding": 1, **kwargs})
    return conv, WinogradConv2d.from_conv(conv, m)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [0, 1, (2, 1), "same", "valid"])
def test_from_conv_has_the_same_function(m, mode, padding):
    conv, layer = conv_and_layer(m, padding=padding, padding_mode=mode, groups=2)
    x = torch.randn(2, 6, 9, 12)
    # The promise for 3x3 and m <= 4: 1e-5 of the output's maximum in float32.
    assert error(layer(x), conv(x)) < 1e-5


def test_from_conv_rounds_once():
    conv, layer = conv_and_layer()
    exact = reference.winograd_weight(conv.weight.detach().numpy(), layer.algorithm)
    exact = exact * layer.scale.double().numpy()
    assert np.array_equal(layer.weight.detach().numpy(), exact.astype(np.float32))
    assert torch.equal(layer.bias, conv.bias)
    assert layer.bias is not conv.bias


def test_initial_distribution_is_the_one_of_conv2d():
    torch.manual_seed(12)
    layer = WinogradConv2d(64, 64, 3, 4, padding=1)
    conv = nn.Conv2d(64, 64, 3, padding=1)
    x = torch.randn(4, 64, 16, 16)
    # Standard deviations of 64 * 4 * 256 values that share 64 * 64 * 9 weights: 5 % is generous.
    assert layer(x).std().item() == pytest.approx(conv(x).std().item(), rel=0.05)
    assert torch.allclose(
        layer.scale.flatten().double(), torch.tensor(layer.algorithm.importance())
    )


def test_trained_like_a_convolution():
    """One step of gradient descent on U is what autograd says it is for the plain product."""
    _, layer = conv_and_layer()
    x = torch.randn(1, 6, 8, 8)
    layer(x).square().sum().backward()
    u = layer.winograd_weight.detach().requires_grad_()
    functional.winograd_conv2d(
        x, u, layer.bias.detach(), 4, 3, layer.padding
    ).square().sum().backward()
    assert torch.allclose(layer.weight.grad, u.grad / layer.scale, rtol=1e-4, atol=1e-7)


def test_mask_zeroes_exactly_and_stops_gradients():
    _, layer = conv_and_layer()
    before = layer.weight.detach().clone()
    mask = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(13)) < 0.3
    layer.set_mask(mask)
    mask_given = mask.clone()
    mask.fill_(True)  # the layer keeps a copy
    assert torch.equal(layer.winograd_weight != 0, mask_given)
    layer(torch.randn(1, 6, 8, 8)).sum().backward()
    assert bool((layer.weight.grad[~mask_given] == 0).all())
    assert torch.equal(layer.weight, before)
    layer.set_mask(None)
    assert torch.equal(layer.winograd_weight != 0, before != 0)


def test_set_scale_keeps_u_and_mask():
    _, layer = conv_and_layer()
    layer.set_mask(torch.rand(layer.weight.shape) < 0.5)
    u, mask = layer.winograd_weight.detach(), layer.mask.clone()
    scale = torch.rand(36, 1, 6) + 0.1
    layer.set_scale(scale)
    # One rounding of Q and one of the division on either side.
    assert torch.allclose(layer.winograd_weight, u, rtol=4e-7, atol=0)
    assert torch.equal(layer.mask, mask)
    assert torch.equal(layer.scale, scale)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_must_be_positive_and_finite(bad):
    _, layer = conv_and_layer()
    scale = torch.ones(36, 1, 1)
    scale[7] = bad
    with pytest.raises(ConfigError, match="positive and finite"):
        layer.set_scale(scale)


@pytest.mark.parametrize("shape", [(36,), (16, 1, 1), (36, 1, 5), (1, 1, 1, 1)])
def test_a_scale_must_broadcast(shape):
    _, layer = conv_and_layer()
    with pytest.raises(ShapeError, match="does not broadcast"):
        layer.set_scale(torch.ones(shape))


@pytest.mark.parametrize("mask", [torch.ones(36, 4, 6), torch.ones(36, 4, 5, dtype=torch.bool)])
def test_a_mask_must_fit(mask):
    _, layer = conv_and_layer()
    with pytest.raises(ShapeError, match="a mask must be bool"):
        layer.set_mask(mask)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"groups": 4}, "do not fit 4 groups"),
        ({"groups": 0}, "do not fit 0 groups"),
        ({"padding_mode": "constant"}, "padding_mode must be one of"),
        ({"padding": (1, 2, 3)}, "padding must be"),
        ({"padding": -1}, "padding must be"),
        ({"m": 0}, "positive integers"),
        ({"dtype": torch.float16}, "dtype must be float32 or float64"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        WinogradConv2d(**{"in_channels": 6, "out_channels": 6, "kernel_size": 3, "m": 4, **kwargs})


@pytest.mark.parametrize("kwargs", [{"stride": 2}, {"dilation": 2}, {"kernel_size": (3, 5)}])
def test_from_conv_refuses_what_has_no_tile(kwargs):
    with pytest.raises(ConfigError, match="square kernel, stride 1 and dilation 1"):
        conv_and_layer(**kwargs)


def test_four_sides():
    assert four_sides(2) == (2, 2, 2, 2)
    assert four_sides((1, 2)) == (1, 2, 1, 2)
    assert four_sides((1, 2, 3, 4)) == (1, 2, 3, 4)


def test_repr_shows_what_matters():
    layer = WinogradConv2d(4, 6, 5, 2, (1, 0), 2, bias=False, padding_mode="circular")
    layer.set_mask(torch.zeros_like(layer.weight, dtype=torch.bool))
    assert repr(layer) == (
        "WinogradConv2d(4, 6, F(2,5), padding=(1, 0, 1, 0), groups=2, bias=False, "
        "padding_mode='circular', density=0.0000)"
    )


def test_state_dict_round_trip():
    _, layer = conv_and_layer()
    layer.set_scale(torch.rand(36, 1, 6) + 0.5)
    layer.set_mask(torch.rand(layer.weight.shape) < 0.5)
    other = WinogradConv2d(6, 4, 3, 4, padding=1)
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    x = torch.randn(1, 6, 9, 9)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(other.mask, layer.mask)
    assert torch.equal(other.scale, layer.scale)
    layer.set_mask(None)
    other.load_state_dict(layer.state_dict())
    assert other.mask is None


def test_checkpoint_goes_through_a_file_without_pickled_code(tmp_path):
    _, layer = conv_and_layer()
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    state = torch.load(tmp_path / "layer.pt", weights_only=True)
    other = WinogradConv2d(6, 4, 3, 4)
    other.load_state_dict(state)
    assert torch.equal(other.weight, layer.weight)


def tampered(**changes):
    state = WinogradConv2d(6, 4, 3, 4).state_dict()
    for name, change in changes.items():
        state[name] = change(state.get(name))
    return state


def with_entry(index, value):
    def change(state):
        state = state.clone()
        state[index] = value
        return state

    return change


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (WinogradConv2d(6, 4, 3, 2).state_dict(), r"holds version 1 of F\(2,3\) at points 0, 1"),
        (WinogradConv2d(6, 4, 5, 2).state_dict(), r"holds version 1 of F\(2,5\)"),
        (WinogradConv2d(5, 4, 3, 4).state_dict(), r"\[36, 4, 6\] of F\(4,3\), got \[36, 4, 5\]"),
        (nn.Conv2d(6, 4, 3).state_dict(), r"Winograd-domain weights .* got \[4, 6, 3, 3\]"),
        (tampered(_extra_state=with_entry(0, 2)), "version 2 of"),
        (tampered(_extra_state=with_entry(5, 3)), "at points 0, 3, -1"),
        (tampered(_extra_state=lambda _: "text"), "something else"),
        (tampered(scale=torch.neg), "positive and finite"),
        (tampered(scale=lambda s: s[:3]), "does not broadcast"),
        (tampered(mask=lambda _: torch.ones(36, 4, 6)), "the mask is torch.float32"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(state, message):
    model = nn.Sequential(nn.ReLU(), WinogradConv2d(6, 4, 3, 4))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(WeightsError, match=f"^1: .*{message}"):
        model.load_state_dict({f"1.{name}": value for name, value in state.items()})
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_public_names():
    import tvm_sparsewino.nn as package

    assert package.WinogradConv2d is WinogradConv2d
    assert callable(package.convert)
    assert package.PruneConfig().sparsity == 0.9
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def test_without_torch_the_error_names_the_extra(monkeypatch):
    import importlib.util
    import sys

    for name in [n for n in sys.modules if n.startswith("tvm_sparsewino.nn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    with pytest.raises(MissingExtra, match=r"tvm-sparsewino\[torch\]"):
        __import__("tvm_sparsewino.nn")


def test_mixed_precision_leaves_the_transforms_in_the_dtype_of_the_parameters():
    layer = WinogradConv2d(4, 5, 3, 4, padding=1)
    x = torch.randn(2, 4, 9, 9).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, layer(x.float()))
    out.sum().backward()
    assert x.grad.dtype == torch.bfloat16 and layer.weight.grad.dtype == torch.float32
