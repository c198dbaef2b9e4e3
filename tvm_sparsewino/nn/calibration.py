"""Measure a network's activations in the Winograd domain, and set scales from them.

The importance of a coordinate under white input is a poor guide: photographs and feature maps
load the low coordinates far more than the high ones. The gain measured here,
``rms(V[xi, c]) * |A row xi|``, is the change of the output for a unit change of a coefficient on
data that the network really sees. As a layer's scale it makes ordinary learning rates work, and
``|Q|`` the criterion "activation" of :class:`~tvm_sparsewino.nn.NativePruner`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PruneError
from .functional import transform_input
from .layers import WinogradConv2d, explicit_padding

# Below this share of the median over a coordinate's channels a gain is noise: a coefficient
# divided by it would explode (dead channels have a gain of zero).
FLOOR = 0.05


def winograd_layers(model: nn.Module) -> dict[str, WinogradConv2d]:
    """The Winograd layers of ``model`` by name, in the order of the model.

    Raises:
        PruneError: there is none.
    """
    layers = {n: x for n, x in model.named_modules() if isinstance(x, WinogradConv2d)}
    if not layers:
        raise PruneError(
            f"{type(model).__name__} has no Winograd layer: convert(model, ...) makes them"
        )
    return layers


def run_on(model: nn.Module, batch: Any) -> Any:
    """Call ``model`` on a batch: one input, or a tuple of positional arguments."""
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


@contextmanager
def watching(
    layers: Iterable[nn.Module], see: Callable[[nn.Module, Tensor, Tensor], None]
) -> Iterator[None]:
    """Inside, every call of one of ``layers`` is shown to ``see(layer, input, output)``."""
    handles = [
        layer.register_forward_hook(lambda module, args, out: see(module, args[0], out))
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def transformed_input(layer: WinogradConv2d, x: Tensor) -> Tensor:
    """V [alpha^2, tiles, C] of a layer's input [N, C, H, W], as its coefficients see it.

    That is with the layer's own padding, and behind its ReLU if it has one.
    """
    x, padding = explicit_padding(x, layer.padding, layer.padding_mode)
    v = transform_input(x, layer.m, layer.r, padding)
    return v.relu_() if layer.winograd_relu else v


@torch.no_grad()
def measure_gains(model: nn.Module, batches: Iterable[Any]) -> dict[str, Tensor]:
    """Gain of every coordinate and input channel of every Winograd layer on ``batches``.

    The model runs as it is: call ``model.eval()`` first where that matters.

    Args:
        model: a network with Winograd layers.
        batches: inputs, or tuples of positional arguments.

    Returns:
        name -> ``rms(V[xi, c]) * |A row xi|``, float32 or float64 [alpha^2, C], not floored.

    Raises:
        PruneError: no Winograd layer, no batch, or a layer that no batch reaches.
    """
    layers = winograd_layers(model)
    names = {layer: name for name, layer in layers.items()}
    power: dict[str, Tensor] = {}
    tiles: dict[str, int] = {}

    def see(layer: WinogradConv2d, x: Tensor, _: Tensor) -> None:
        v = transformed_input(layer, x)
        name = names[layer]
        power[name] = power.get(name, 0) + v.square().sum(1, dtype=torch.float64)
        tiles[name] = tiles.get(name, 0) + v.shape[1]

    with watching(layers.values(), see):
        for batch in batches:
            run_on(model, batch)
    missing = sorted(set(layers) - set(power))
    if missing:
        raise PruneError(f"the calibration batches do not reach layers {missing}")
    return {
        name: (power[name] / tiles[name]).sqrt().to(layer.weight)
        * torch.from_numpy(layer.algorithm.output_gain()).to(layer.weight)[:, None]
        for name, layer in layers.items()
    }


def calibrate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Make the measured gains, floored, the scale of every Winograd layer; U stays what it is.

    Call it before training: momentum kept by an optimiser refers to the scale.

    Raises:
        PruneError: as :func:`measure_gains`, or a layer whose input is always zero.
    """
    layers = winograd_layers(model)
    for name, gain in measure_gains(model, batches).items():
        layer = layers[name]
        floor = FLOOR * gain.median(dim=1, keepdim=True).values
        # A coordinate most of whose channels are dead takes its floor from the whole layer.
        floor = torch.maximum(floor, FLOOR**2 * gain.mean())
        if not bool((floor > 0).all()):
            raise PruneError(f"layer {name!r}: its input is zero on every calibration batch")
        layer.set_scale(_spread(torch.maximum(gain, floor), layer))


def is_calibrated(layer: WinogradConv2d) -> bool:
    """Whether the layer's scale is another one than the importance under white input."""
    white = torch.from_numpy(layer.algorithm.importance()).to(layer.scale).view(-1, 1, 1)
    return layer.scale.shape != white.shape or not torch.equal(layer.scale, white)


def _spread(gain: Tensor, layer: WinogradConv2d) -> Tensor:
    """[alpha^2, C] -> something that broadcasts to the weight [alpha^2, K, C/groups]."""
    if layer.groups == 1:
        return gain[:, None, :]
    per_group = gain.view(gain.shape[0], layer.groups, 1, -1)
    k = layer.out_channels // layer.groups
    return per_group.expand(-1, -1, k, -1).reshape(layer.weight.shape)
