"""Networks drawn at random, compiled and compared with PyTorch in float64.

Every seed is another network: odd maps, batches, filters, strides, dilations, paddings and groups,
zeros from none to all, and what stands between convolutions in real networks. Tolerance: 2e-4 of
the largest output, for float32 through several layers; a wrong index is off by 1e-2.
"""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tvm_sparsewino as sw
from tvm_sparsewino.nn import convert

DENSITIES = (1, 1, 0.5, 0.1, 0.02, 0)
BETWEEN = (
    lambda c: nn.MaxPool2d(2, 1, 1),
    lambda c: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    lambda c: nn.AvgPool2d(2),
    lambda c: nn.Upsample(scale_factor=2, mode="nearest"),
    nn.PReLU,
    lambda c: nn.GELU(),
    lambda c: nn.Softmax(1),
    lambda c: nn.PixelShuffle(2) if c % 4 == 0 else nn.Sigmoid(),
)
ACTIVATIONS = (nn.Identity, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, lambda: nn.LeakyReLU(0.1))


class Residual(nn.Module):
    """Two convolutions, BatchNorm, and what went in added."""

    def __init__(self, rng, channels):
        super().__init__()
        r = rng.choice((1, 3, 5))
        self.first = sparse(rng, nn.Conv2d(channels, channels, r, padding=r // 2))
        self.second = sparse(rng, nn.Conv2d(channels, channels, 3, padding=1))
        self.norm = nn.BatchNorm2d(channels)
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x):
        return torch.relu(self.norm(self.second(torch.relu(self.first(x)))) + x)


class Branches(nn.Module):
    """Two convolutions of one input, joined with it."""

    def __init__(self, rng, channels):
        super().__init__()
        self.left = sparse(rng, nn.Conv2d(channels, 5, 1))
        self.right = sparse(rng, nn.Conv2d(channels, 7, 3, padding=1))

    def forward(self, x):
        return torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x)), x], 1)


class Head(nn.Module):
    """Global pooling and a linear layer."""

    def __init__(self, rng, channels):
        super().__init__()
        self.linear = sparse(rng, nn.Linear(channels, rng.choice((1, 10, 33))))

    def forward(self, x):
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def sparse(rng, layer):
    with torch.no_grad():
        layer.weight *= torch.rand_like(layer.weight) < rng.choice(DENSITIES)
    return layer


def convolution(rng, c, h, w):
    """A convolution that fits a map, with what follows it."""
    groups = rng.choice([1, 1, 1, c, *(d for d in (2, 4) if c % d == 0)])
    k = groups * rng.choice((1, 2, 5, 8) if groups < 8 else (1, 2))
    r, s = rng.choice(((1, 1), (2, 2), (3, 3), (3, 3), (4, 4), (5, 5), (7, 7), (3, 1), (1, 5)))
    stride, dilation = rng.choice(((1, 1), (1, 1), (2, 1), (1, 2), ((2, 1), 1), (3, 1)))
    # Padding that makes the filter fit, or more.
    padding = tuple(
        max(rng.randint(0, taps), -(-(dilation * (taps - 1) + 1 - size) // 2))
        for taps, size in ((r, h), (s, w))
    )
    conv = nn.Conv2d(c, k, (r, s), stride, padding, dilation, groups, bias=rng.random() < 0.7)
    norm = nn.BatchNorm2d(k) if rng.random() < 0.4 else nn.Identity()
    return nn.Sequential(sparse(rng, conv), norm, rng.choice(ACTIVATIONS)())


def network(rng):
    """A network and its input."""
    shape = (
        rng.choice((1, 1, 2, 5)),
        rng.choice((1, 2, 3, 8, 17)),
        *rng.choices(range(5, 30), k=2),
    )
    layers, x = [], torch.randn(shape)
    for _ in range(rng.randint(2, 4)):
        c, h, w = x.shape[1:]
        kind = rng.choice(("conv", "conv", "conv", "residual", "branches", "between"))
        if kind == "conv" or min(h, w) < 3:
            layer = convolution(rng, c, h, w)
        elif kind == "between":
            layer = rng.choice(BETWEEN)(c)
        else:
            layer = (Residual if kind == "residual" else Branches)(rng, c)
        layers.append(layer.eval())
        with torch.no_grad():
            x = layer(x)
    if rng.random() < 0.5:
        layers.append(Head(rng, x.shape[1]))
    return nn.Sequential(*layers).eval(), torch.randn(shape)


@pytest.mark.parametrize("seed", range(16))
def test_compiled_is_pytorch(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    net, x = network(rng)
    net = convert(net, tile=rng.choice((2, 4))) if seed % 4 == 3 else net
    with torch.no_grad():
        expected = net.double()(x.double()).numpy()
    target = "llvm -mcpu=x86-64" if seed % 4 == 1 else "native"
    exe = sw.compile(sw.import_torch(net.float(), (x,)), target=target, num_threads=1 + seed % 2)
    got = exe(x.numpy())
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 2e-4 * max(np.abs(expected).max(), 1e-6)
