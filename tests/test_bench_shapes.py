"""The shape files against the networks' published structure."""

import pytest
from torch import nn

from tvm_sparsewino.bench.shapes import NETWORKS, Layer, headline, network_layers, select
from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.nn.models import FFDNet


def test_ffdnet_is_that_of_the_package():
    convs = [module for module in FFDNet().modules() if isinstance(module, nn.Conv2d)]
    counts = {}
    for conv in convs:
        layer = Layer(conv.in_channels, conv.out_channels, 212, 320)
        counts[layer] = counts.get(layer, 0) + 1
    assert network_layers("ffdnet") == counts


# Giga multiply-adds of all 3x3 convolutions of VGG-16 (all of its convolutions: 15.35), and of
# the stride-1 ones of the ResNets, whose every 3x3 stage layer costs 64 * 64 * 9 * 56 * 56.
@pytest.mark.parametrize(
    "network, layers, macs",
    [
        ("vgg16", 13, 15.3466e9),
        ("resnet18", 13, 13 * 115.605504e6),
        ("resnet34", 29, 29 * 115.605504e6),
        ("resnet50", 13, 13 * 115.605504e6),
    ],
)
def test_counts_and_work(network, layers, macs):
    counts = network_layers(network)
    assert sum(counts.values()) == layers
    done = sum(count * layer.conv(1).direct_flops // 2 for layer, count in counts.items())
    assert done == pytest.approx(macs, rel=1e-4)


def test_headline_layers_are_the_twelve_distinct_ones():
    layers = headline()
    assert len(layers) == len(set(layers)) == 12
    assert min(layer.c for layer in layers) >= 32


def test_selection_by_name_keeps_the_asked_order():
    names = ["128>128@28x28", "64>64@56x56"]
    assert [str(layer) for layer in select(["resnet18"], names)] == names
    assert len(select(NETWORKS, channels=1)) == 16


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"alexnet.*vgg16"):
        network_layers("alexnet")
    with pytest.raises(ConfigError, match=r"1>1@1x1.*64>64@56x56"):
        select(["resnet18"], ["1>1@1x1"])
