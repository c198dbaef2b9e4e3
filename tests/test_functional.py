"""The Winograd convolution and its gradients against the float64 reference, wherever tiles fall."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import error
from torch import nn

from tvm_sparsewino import reference
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.nn import functional, tiles
from tvm_sparsewino.nn.layers import WinogradConv2d

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
