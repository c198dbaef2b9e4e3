"""The 3x3 stride-1 layers of known networks, from the package's shape files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

from ..config import ConvShape
from ..errors import ConfigError

NETWORKS = ("vgg16", "resnet18", "resnet34", "resnet50", "ffdnet")
# What the summary's figures are taken over.
HEADLINE_NETWORKS = ("vgg16", "resnet18", "resnet50")
HEADLINE_CHANNELS = 32
SAME = (1, 1, 1, 1)


@dataclass(frozen=True)
class Layer:
    """One distinct convolution of 3x3 taps, stride 1 and padding 1.

    Attributes:
        c, k: input and output channels.
        h, w: height and width of the map.
    """

    c: int
    k: int
    h: int
    w: int

    def __str__(self) -> str:
        return f"{self.c}>{self.k}@{self.h}x{self.w}"

    def conv(self, batch: int) -> ConvShape:
        """Its shape with a batch."""
        return ConvShape(batch, self.c, self.h, self.w, self.k, 3, SAME)


def network_layers(network: str) -> dict[Layer, int]:
    """The distinct layers of a network, in its order, and how often it has each.

    Raises:
        ConfigError: no such network.
    """
    if network not in NETWORKS:
        raise ConfigError(f"no layers of network {network!r}; there are {', '.join(NETWORKS)}")
    path = files("tvm_sparsewino").joinpath("data", "layers", f"{network}.json")
    rows = json.loads(path.read_text())["layers"]
    return {Layer(r["c"], r["k"], r["h"], r["w"]): r["count"] for r in rows}


def select(networks: Iterable[str], names: Iterable[str] = (), channels: int = 1) -> list[Layer]:
    """The distinct layers of ``networks`` in order.

    Args:
        networks: names out of ``NETWORKS``.
        names: layers as they print, such as "64>64@56x56"; all if empty.
        channels: input channels that a layer has at least.

    Raises:
        ConfigError: an unknown network, or a layer that none of them has.
    """
    layers = list(dict.fromkeys(layer for n in networks for layer in network_layers(n)))
    by_name = {str(layer): layer for layer in layers}
    for name in names:
        if name not in by_name:
            raise ConfigError(f"no layer {name!r}; there are {', '.join(by_name)}")
    chosen = [by_name[name] for name in names] or layers
    return [layer for layer in chosen if layer.c >= channels]


def headline() -> list[Layer]:
    """The layers that the summary's figures are taken over."""
    return select(HEADLINE_NETWORKS, channels=HEADLINE_CHANNELS)
