"""The Winograd convolution and layer in PyTorch against the NumPy oracle."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tvm_sparsewino import reference
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ConfigError, MissingExtra, ShapeError, WeightsError
from tvm_sparsewino.nn import functional, tiles
from tvm_sparsewino.nn.layers import WinogradConv2d
from tvm_sparsewino.nn.padding import four_sides

# float64 carries 16 digits, of which the largest algorithms here lose 4.
EXACT = 1e-11

SIZES = [(2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (6, 5), (1, 3), (3, 2), (2, 7)]

# N, C, H, W, K, padding, groups: one tile, tile - 1, tile + 1, primes, rectangles, lopsided.
SHAPES = [
    (1, 1, 7, 7, 1, (0, 0, 0, 0), 1),
    (2, 3, 8, 13, 5, (1, 1, 1, 1), 1),
    (3, 4, 11, 7, 6, (0, 2, 1, 3), 2),
    (1, 6, 9, 17, 6, (4, 0, 0, 0), 6),
    (5, 2, 6, 6, 3, (1, 1, 1, 1), 1),
]


def operands(seed, n, c, h, w, k, m, r, groups, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c, h, w, generator=generator, dtype=dtype)
    u = torch.randn((m + r - 1) ** 2, k, c // groups, generator=generator, dtype=dtype)
    return x, u, torch.randn(k, generator=generator, dtype=dtype)


def oracle(x, u, bias, m, r, padding, groups):
    bias = None if bias is None else bias.numpy()
    y = reference.winograd_conv2d(x.numpy(), u.numpy(), cook_toom(m, r), bias, padding, groups)
    return torch.from_numpy(y)


def error(have, want):
    return ((have - want).abs().max() / want.abs().max()).item()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("m", "r"), SIZES)
def test_forward_matches_the_reference(m, r, shape, layout):
    n, c, h, w, k, padding, groups = shape
    x, u, bias = operands(1, n, c, h, w, k, m, r, groups)
    x = x.contiguous(memory_format=layout)
    y = functional.winograd_conv2d(x, u, bias, m, r, padding, groups)
    assert error(y, oracle(x, u, bias, m, r, padding, groups)) < EXACT
    assert y.is_contiguous(memory_format=functional.memory_format(x))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_forward_matches_the_reference_anywhere(data):
    m, r = data.draw(st.sampled_from([(2, 3), (4, 3), (6, 3), (2, 5), (4, 5)]))
    groups = data.draw(st.integers(1, 3))
    c, k = (groups * data.draw(st.integers(1, 3)) for _ in range(2))
    padding = tuple(data.draw(st.integers(0, r)) for _ in range(4))
    h, w = (data.draw(st.integers(r, 15)) for _ in range(2))
    n = data.draw(st.integers(1, 3))
    x, u, bias = operands(data.draw(st.integers(0, 99)), n, c, h, w, k, m, r, groups)
    y = functional.winograd_conv2d(x, u, bias, m, r, padding, groups)
    assert error(y, oracle(x, u, bias, m, r, padding, groups)) < EXACT


@pytest.mark.parametrize("smallest", [1, 3, 7, 10_000])
def test_chunks_change_nothing(monkeypatch, smallest):
    x, u, _ = operands(2, 3, 4, 13, 17, 6, 4, 3, 2)
    grad = torch.randn(3, 6, 13, 17, dtype=torch.float64)
    spec = (4, 3, (1, 1, 1, 1), 2)
    want = functional.winograd_conv2d(x, u, None, *spec)
    wanted = functional.gradients(grad, x, u, *spec, needs=(True, True))
    monkeypatch.setattr(tiles, "_MIN_CHUNK_TILES", smallest)
    monkeypatch.setattr(tiles, "_CHUNK_BYTES", {"cpu": 0})
    assert error(functional.winograd_conv2d(x, u, None, *spec), want) < EXACT
    for have, reference_grad in zip(
        functional.gradients(grad, x, u, *spec, needs=(True, True)), wanted, strict=True
    ):
        assert error(have, reference_grad) < EXACT


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("m", "r", "padding", "groups"),
    [
        (2, 3, (1, 1, 1, 1), 1),
        (4, 3, (0, 1, 2, 0), 2),
        (6, 3, (1, 1, 1, 1), 1),
        (2, 5, (2, 2, 2, 2), 2),
        (4, 5, (0, 3, 1, 2), 1),
        (1, 3, (0, 0, 0, 0), 1),
    ],
)
def test_gradients_of_first_and_second_order(m, r, padding, groups, layout):
    x, u, bias = operands(3, 2, 2, 5, 6, 2, m, r, groups)
    x = x.contiguous(memory_format=layout)
    inputs = [t.requires_grad_() for t in (x, u, bias)]

    def call(*args):
        return functional.winograd_conv2d(*args, m, r, padding, groups)

    # fast_mode checks random projections of the Jacobian: seconds instead of minutes.
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("needed", [(True, False), (False, True)])
def test_a_gradient_that_nobody_needs_is_not_computed(monkeypatch, needed):
    x, u, _ = operands(4, 1, 3, 9, 8, 2, 4, 3, 1)
    x.requires_grad_(needed[0])
    u.requires_grad_(needed[1])
    asked = []
    real = functional.gradients

    def spy(*args, needs):
        asked.append(needs)
        return real(*args, needs=needs)

    monkeypatch.setattr(functional, "gradients", spy)
    y = functional.winograd_conv2d(x, u, None, 4, 3, (1, 1, 1, 1))
    y.backward(torch.ones_like(y))
    assert asked == [needed]
    assert [t.grad is not None for t in (x, u)] == list(needed)


def test_second_derivatives_match_a_direct_convolution():
    """Once more in a form people use: the gradient of a gradient penalty."""
    torch.manual_seed(5)
    conv = nn.Conv2d(3, 4, 3, padding=1).double()
    layer = WinogradConv2d.from_conv(conv, 4)
    penalties = []
    for module in (conv, layer):
        x = torch.linspace(-1, 1, 3 * 7 * 9, dtype=torch.float64).view(1, 3, 7, 9).requires_grad_()
        (grad,) = torch.autograd.grad(module(x).tanh().sum(), x, create_graph=True)
        (twice,) = torch.autograd.grad(grad.square().sum(), x)
        penalties.append(twice)
    assert error(penalties[1], penalties[0]) < EXACT


def test_strided_and_expanded_tensors():
    x, u, _ = operands(6, 2, 4, 10, 12, 3, 4, 3, 1)
    view = x[:, :, ::2, 1:].requires_grad_()
    y = functional.winograd_conv2d(view, u, None, 4, 3, (1, 1, 1, 1))
    assert error(y.detach(), oracle(view.detach(), u, None, 4, 3, (1, 1, 1, 1), 1)) < EXACT
    (a,) = torch.autograd.grad(y.sum(), view, retain_graph=True)  # an expanded gradient
    (b,) = torch.autograd.grad(y, view, torch.ones_like(y))
    assert torch.equal(a, b)
    permuted = u.permute(2, 1, 0).contiguous().permute(2, 1, 0).requires_grad_()
    again = functional.winograd_conv2d(view, permuted, None, 4, 3, (1, 1, 1, 1))
    assert torch.equal(again, y)
    (c,) = torch.autograd.grad(again.sum(), permuted)
    assert c.shape == u.shape


def test_an_empty_batch():
    x, u, bias = operands(7, 0, 3, 8, 8, 2, 4, 3, 1)
    u.requires_grad_()
    y = functional.winograd_conv2d(x, u, bias, 4, 3)
    y.sum().backward()
    assert y.shape == (0, 2, 6, 6)
    assert torch.equal(u.grad, torch.zeros_like(u))


def test_transformed_input_is_what_the_coefficients_meet():
    x, u, _ = operands(8, 2, 3, 9, 7, 2, 4, 3, 1)
    v = functional.transform_input(x, 4, 3, (1, 1, 1, 1))
    assert v.shape == (36, 2 * 3 * 2, 3)
    at = torch.from_numpy(np.kron(*[cook_toom(4, 3).arrays()[2]] * 2))
    first = at @ torch.einsum("xtc,xkc->xtk", v, u)[:, 0]
    y = oracle(x, u, None, 4, 3, (1, 1, 1, 1), 1)[0, :, :4, :4]
    assert error(first.T.reshape(2, 4, 4), y) < EXACT


def test_autocast_computes_in_the_coefficients_dtype():
    layer = WinogradConv2d(3, 4, 3, 4, padding=1)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(9)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, layer(x.float()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (4, 5)])
def test_cuda_matches_cpu(m, r):
    x, u, bias = operands(10, 3, 4, 11, 13, 6, m, r, 2)
    grads = []
    for device in ("cpu", "cuda"):
        inputs = [t.detach().to(device).requires_grad_() for t in (x, u, bias)]
        y = functional.winograd_conv2d(*inputs, m, r, (1, 1, 1, 1), 2)
        y.square().sum().backward()
        grads.append([y.detach(), *(t.grad for t in inputs)])
    for have, want in zip(grads[1], grads[0], strict=True):
        assert error(have.cpu(), want) < EXACT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(16, 4, 3)}, r"F\(4,3\) needs \[36, K, C\]"),
        ({"weight": torch.zeros(36, 4, 3, 1)}, r"needs \[36, K, C\]"),
        ({"x": torch.zeros(3, 8, 8)}, r"must be \[N, C, H, W\]"),
        ({"x": torch.zeros(1, 5, 8, 8)}, "5 input and 4 output channels do not fit 1 groups of 3"),
        ({"groups": 0}, "do not fit 0 groups"),
        ({"x": torch.zeros(1, 3, 8, 8).half()}, "got torch.float16 and torch.float32"),
        ({"x": torch.zeros(1, 3, 8, 8).double()}, "got torch.float64 and torch.float32"),
        ({"padding": (1, 1)}, "padding must be 4 sizes"),
        ({"padding": (1, 1, -1, 1)}, "padding must be 4 sizes"),
        ({"bias": torch.zeros(5)}, r"bias must be torch.float32 \[4\]"),
        ({"x": torch.zeros(1, 3, 2, 8)}, "2x8 with padding .* smaller than 3x3"),
    ],
)
def test_operands_that_do_not_fit(change, message):
    good = {
        "x": torch.zeros(1, 3, 8, 8),
        "weight": torch.zeros(36, 4, 3),
        "bias": torch.zeros(4),
        "m": 4,
        "r": 3,
        "padding": (0, 0, 0, 0),
        "groups": 1,
    }
    functional.winograd_conv2d(**good)
    with pytest.raises(ShapeError, match=message):
        functional.winograd_conv2d(**{**good, **change})


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
