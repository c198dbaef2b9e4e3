"""Bring a network with Winograd layers into ``torch.export``'s form, one node per layer."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ImportFailed
from .layers import WinogradConv2d
from .operator import winograd_conv2d
from .padding import explicit_padding


class FrozenWinogradConv2d(nn.Module):
    """A Winograd layer for inference: U itself, scale divided out and mask applied.

    Args:
        layer: where the coefficients come from; they are copied.
    """

    def __init__(self, layer: WinogradConv2d) -> None:
        super().__init__()
        self.m, self.r, self.groups = layer.m, layer.r, layer.groups
        self.winograd_relu = layer.winograd_relu
        self.padding, self.padding_mode = layer.padding, layer.padding_mode
        weight = layer.winograd_weight.detach().clone()
        bias = None if layer.bias is None else layer.bias.detach().clone()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, K, OH, OW]."""
        x, padding = explicit_padding(x, self.padding, self.padding_mode)
        args = (x, self.weight, self.bias, self.m, self.r, list(padding), self.groups)
        return winograd_conv2d(*args, self.winograd_relu)


def prepare_for_export(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode whose Winograd layers hold U as one buffer each."""
    model = copy.deepcopy(model).eval()
    frozen: dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, WinogradConv2d):
                if child not in frozen:
                    frozen[child] = FrozenWinogradConv2d(child).eval()
                parent._modules[name] = frozen[child]
    return FrozenWinogradConv2d(model).eval() if isinstance(model, WinogradConv2d) else model


def exported_program(
    model: nn.Module, example: tuple[Any, ...], dynamic_shapes: Any = None
) -> torch.export.ExportedProgram:
    """``torch.export.export`` in evaluation mode, one node per Winograd layer.

    Each Winograd layer is one ``sparsewino.winograd_conv2d`` node whose weight is U,
    [alpha^2, K, C/groups], a buffer of the program of its own. Decompositions are left to the
    importer.

    Args:
        model: any module, with or without Winograd layers.
        example: the positional arguments to export with.
        dynamic_shapes: dimensions that stay open, as ``torch.export.export`` takes them; None:
            all are static.

    Raises:
        ImportFailed: PyTorch cannot export the model; the message gives its reason.
    """
    if not isinstance(example, tuple):
        raise ImportFailed(f"example must be a tuple of arguments, got {type(example).__name__}")
    try:
        with torch.no_grad():
            return torch.export.export(
                prepare_for_export(model), example, dynamic_shapes=dynamic_shapes, strict=False
            )
    except Exception as error:  # PyTorch's kinds of export failure share no base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImportFailed(f"{type(model).__name__} cannot be exported: {reason}") from error
