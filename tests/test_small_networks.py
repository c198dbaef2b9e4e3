"""The small residual and VGG-style networks: sizes of their maps, and what is converted."""

import pytest
import torch
from torch import nn

from tvm_sparsewino.nn import WinogradConv2d, convert
from tvm_sparsewino.nn.models.small_resnet import SmallResNet
from tvm_sparsewino.nn.models.small_vgg import SmallVGG


@pytest.mark.parametrize(
    ("network", "convolutions"), [(SmallResNet, 1 + 2 * 3 + 2), (SmallVGG, 2 * 3)]
)
def test_a_stride_halves_the_first_map_and_only_that(network, convolutions):
    maps = {stride: sizes(network(widths=(4, 6, 8), stride=stride)) for stride in (1, 2)}
    assert len(maps[1]) == len(maps[2]) == convolutions
    assert sorted(set(maps[1])) == [7, 14, 28]
    assert sorted(set(maps[2])) == ([4, 7, 14] if network is SmallResNet else [3, 7, 14])


def sizes(model):
    """Of the maps that the convolutions make of an image of 28x28."""
    seen = []
    for x in model.modules():
        if isinstance(x, nn.Conv2d):
            x.register_forward_hook(lambda _, args, out: seen.append(out.shape[2]))
    assert model.eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    return seen


@pytest.mark.parametrize(("network", "winograd"), [(SmallResNet, 1 + 1 + 2), (SmallVGG, 5)])
def test_a_first_layer_with_stride_stays_an_ordinary_one(network, winograd):
    model = network(widths=(4, 6, 8), stride=2).eval()
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    converted = convert(model, 4)
    assert sum(isinstance(m, WinogradConv2d) for m in converted.modules()) == winograd
    # Winograd F(4,3) in float32: 1e-5 relative to outputs near 1.
    assert torch.allclose(converted(x), model(x), atol=1e-4)
