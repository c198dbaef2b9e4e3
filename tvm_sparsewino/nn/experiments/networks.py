"""Networks that can be trained, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...errors import ConfigError, SparseWinoError, in_context
from ..data import ImageSource
from ..models.alexnet import alexnet
from ..models.lenet import LeNet5
from ..models.mobilenet import mobilenet_v2
from ..models.resnet import resnet18, resnet34, resnet50
from ..models.small_resnet import SmallResNet
from ..models.small_vgg import SmallVGG
from ..models.vgg import vgg16
from ..modes import evaluation


def _lenet5(source: ImageSource, options: dict[str, Any]) -> nn.Module:
    return LeNet5(source.classes, source.channels, source.size, **options)


def _any_size(network: type[nn.Module]) -> Callable[[ImageSource, dict[str, Any]], nn.Module]:
    def build(source: ImageSource, options: dict[str, Any]) -> nn.Module:
        return network(source.classes, source.channels, **options)

    return build


def _colour(network: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def build(source: ImageSource, options: dict[str, Any]) -> nn.Module:
        if source.channels != 3:
            raise ConfigError(f"takes colour images, these have {source.channels} channels")
        return network(source.classes, **options)

    return build


# Name -> (the data, more arguments of the class) -> the network with random weights.
NETWORKS: dict[str, Callable[[ImageSource, dict[str, Any]], nn.Module]] = {
    "lenet5": _lenet5,
    "small-vgg": _any_size(SmallVGG),
    "small-resnet": _any_size(SmallResNet),
    "resnet18": _colour(resnet18),
    "resnet34": _colour(resnet34),
    "resnet50": _colour(resnet50),
    "vgg16": _colour(vgg16),
    "alexnet": _colour(alexnet),
    "mobilenet-v2": _colour(mobilenet_v2),
}


# What PyTorch and Python raise where sizes or kinds of arguments do not fit.
_MISFITS = (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError)


def make_network(name: str, options: dict[str, Any], source: ImageSource) -> nn.Module:
    """A network for images and classes like those of ``source``, with random weights.

    Raises:
        ConfigError: an unknown name, options that the network does not take, or images that it
            cannot take.
    """
    if name not in NETWORKS:
        raise ConfigError(f"network must be one of {tuple(NETWORKS)}, got {name!r}")
    image = torch.zeros(1, source.channels, source.size, source.size)
    try:
        with in_context(f"network {name!r}"):
            model = NETWORKS[name](source, options)
        with torch.no_grad(), evaluation(model):
            model(image)
    except SparseWinoError:
        raise
    except _MISFITS as error:
        raise ConfigError(
            f"network {name!r} does not take {options} with images {list(image.shape[1:])}: {error}"
        ) from error
    return model
