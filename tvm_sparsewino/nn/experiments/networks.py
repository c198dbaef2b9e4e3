"""Networks that can be trained, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ...errors import ConfigError
from ..data import ImageSource
from ..models.lenet import LeNet5
from ..models.small_resnet import SmallResNet
from ..models.small_vgg import SmallVGG


def _lenet5(source: ImageSource, options: dict[str, Any]) -> nn.Module:
    return LeNet5(source.classes, source.channels, source.size, **options)


def _any_size(network: type[nn.Module]) -> Callable[[ImageSource, dict[str, Any]], nn.Module]:
    def build(source: ImageSource, options: dict[str, Any]) -> nn.Module:
        return network(source.classes, source.channels, **options)

    return build


# Name -> (the data, more arguments of the class) -> the network with random weights.
NETWORKS: dict[str, Callable[[ImageSource, dict[str, Any]], nn.Module]] = {
    "lenet5": _lenet5,
    "small-vgg": _any_size(SmallVGG),
    "small-resnet": _any_size(SmallResNet),
}


def make_network(name: str, options: dict[str, Any], source: ImageSource) -> nn.Module:
    """A network for images and classes like those of ``source``, with random weights.

    Raises:
        ConfigError: an unknown name, or options that the network does not take.
    """
    if name not in NETWORKS:
        raise ConfigError(f"network must be one of {tuple(NETWORKS)}, got {name!r}")
    try:
        return NETWORKS[name](source, options)
    except TypeError as error:
        raise ConfigError(f"network {name!r} does not take {options}: {error}") from error
