"""Whole networks to and from weights files."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, WeightsError, in_context
from ..weights import WINOGRAD, LayerWeights, load_weights, save_weights
from .layers import WinogradConv2d


def save_model(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write every layer of ``model`` that holds weights to ``path``, under its module's name.

    A Winograd layer gives its coefficients U; any other layer its ``weight`` and ``bias``.

    Raises:
        WeightsError: a layer holds something else (fold batch normalisation first), is not float32
            or not finite, or the file cannot be written.
    """
    with in_context(str(path)):
        layers = [_stored(name, module) for name, module in _holders(model).items()]
    save_weights(path, layers)


def load_into(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Set every weight of ``model`` from a weights file; returns the same model.

    Where the file has Winograd coefficients for an ``nn.Conv2d``, that becomes a
    :class:`WinogradConv2d` of the file's tile. Coefficients that are zero in the file are masked.
    Nothing is changed unless the whole file fits.

    Raises:
        WeightsError: the file cannot be trusted, lacks a layer of the model, has one more, or one
            of another kind, tile or shape.
    """
    layers = {layer.name: layer for layer in load_weights(path)}
    with in_context(str(path)):
        holders = _holders(model)
        missing, extra = sorted(set(holders) - set(layers)), sorted(set(layers) - set(holders))
        if missing or extra:
            raise WeightsError(f"has no layers {missing}, and layers {extra} are not the model's")
        fitted = {name: _fitted(holders[name], layer) for name, layer in layers.items()}
    for name, module in fitted.items():
        if module is not holders[name]:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module)
        _fill(module, layers[name])
    return model


def _holders(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with parameters or buffers of their own, by name, in the order of the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(x is not None for x in (*module._parameters.values(), *module._buffers.values()))
    }


def _stored(name: str, module: nn.Module) -> LayerWeights:
    bias = _array(getattr(module, "bias", None))
    if isinstance(module, WinogradConv2d):
        u = _array(module.winograd_weight)
        return LayerWeights.winograd(name, module.m, module.r, u, bias, module.winograd_relu)
    held = {k for k, v in (*module._parameters.items(), *module._buffers.items()) if v is not None}
    if held not in ({"weight"}, {"weight", "bias"}):
        raise WeightsError(
            f"layer {name!r}: a {type(module).__name__} with {sorted(held)} cannot be kept, "
            "only weight and bias"
        )
    return LayerWeights.dense(name, _array(module.weight), bias)


def _fitted(module: nn.Module, layer: LayerWeights) -> nn.Module:
    """The module that can take ``layer``: the given one, or a Winograd layer in its place."""
    with in_context(f"layer {layer.name!r}"):
        if layer.kind == WINOGRAD:
            module = _winograd(module, layer)
            values = layer.u
        elif isinstance(module, WinogradConv2d):
            raise WeightsError(f"expected coefficients of {module.algorithm}, got a plain weight")
        else:
            values = layer.weight
        for name, array in (("weight", values), ("bias", layer.bias)):
            want = getattr(module, name, None)
            wanted = None if want is None else tuple(want.shape)
            got = None if array is None else array.shape
            if wanted != got:
                raise WeightsError(f"the model's {name} has shape {wanted}, the file's {got}")
    return module


def _winograd(module: nn.Module, layer: LayerWeights) -> WinogradConv2d:
    if type(module) is nn.Conv2d:
        try:
            module = WinogradConv2d.from_conv(module, layer.m).train(module.training)
        except ConfigError as error:
            raise WeightsError(f"Winograd coefficients do not fit: {error}") from error
    if not isinstance(module, WinogradConv2d):
        raise WeightsError(f"Winograd coefficients do not fit a {type(module).__name__}")
    if (module.m, module.r) != (layer.m, layer.r):
        raise WeightsError(f"expected F({module.m},{module.r}), got F({layer.m},{layer.r})")
    if module.winograd_relu != layer.relu:
        have, want = (("no", "a")[flag] for flag in (module.winograd_relu, layer.relu))
        raise WeightsError(
            f"expected {have} ReLU of transformed inputs, the file's layer has {want} one"
        )
    return module


@torch.no_grad()
def _fill(module: nn.Module, layer: LayerWeights) -> None:
    if isinstance(module, WinogradConv2d):
        u = torch.from_numpy(layer.u).to(module.weight.device)
        module.weight.copy_(u.double() * module.scale.double())
        module.set_mask(u != 0)
    else:
        module.weight.copy_(torch.from_numpy(layer.weight))
    if layer.bias is not None:
        module.bias.copy_(torch.from_numpy(layer.bias))


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.detach().cpu().numpy()
