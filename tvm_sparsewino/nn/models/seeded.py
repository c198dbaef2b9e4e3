"""Random weights that make a network behave like a trained one: no outputs that vanish or explode,
BatchNorm statistics that do something, zeros where pruning would put them.

They stand in for trained weights where only time, memory and rounding are of interest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...config import PruneConfig
from ...errors import ConfigError
from ..calibration import run_on
from ..convert import convert
from ..layers import WinogradConv2d
from ..pruning import NativePruner
from ..sparse_solution import keep_largest

_SPREAD = 0.1  # of biases and of BatchNorm's shifts


@torch.no_grad()
def seed_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give ``model`` random weights, in place; returns it.

    Weights keep the variance of their inputs through ReLUs (K. He et al., ICCV 2015); biases and
    BatchNorm's shifts are small, its scales between 0.5 and 1.5. BatchNorm's statistics are not
    set: :func:`settle_statistics` measures them.
    """
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan_in = module.weight[0].numel()
            if isinstance(module, nn.ConvTranspose2d):
                fan_in = module.in_channels // module.groups
            module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5, generator=random)
        elif isinstance(module, nn.PReLU):
            module.weight.uniform_(0.05, 0.45, generator=random)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            bias.normal_(0, _SPREAD, generator=random)
    return model


@torch.no_grad()
def settle_statistics(model: nn.Module, batch: Any) -> nn.Module:
    """Measure BatchNorm's means and variances on a batch, in place; returns the model, evaluating.

    Args:
        model: any network; one without BatchNorm stays as it is.
        batch: an input, or a tuple of positional arguments; more than one value per channel.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
    with _cumulative(norms):
        model.eval()
        for norm in norms:
            norm.train()
        if norms:
            run_on(model, batch)
    return model.eval()


@contextmanager
def _cumulative(norms: list[nn.BatchNorm2d]) -> Iterator[None]:
    """Inside, a batch's statistics are taken as they are."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def prune_at_once(
    model: nn.Module, density: float, example: Any, winograd: bool = True
) -> nn.Module:
    """A copy of ``model`` of whose weights the share ``density`` is left, without any training.

    Convolutions that :func:`~tvm_sparsewino.nn.convert` takes are pruned in the Winograd domain
    (coefficients by magnitude and importance), other convolutions and linear layers where they
    are (weights by magnitude). Each layer keeps the same share. Depthwise convolutions stay whole:
    they hold next to nothing. BatchNorm's statistics are those from before:
    :func:`settle_statistics` measures them again.

    Args:
        model: any network.
        density: share of weights that stay, in (0, 1].
        example: an input, or a tuple of positional arguments.
        winograd: False prunes every layer where it is, as other tools do.

    Raises:
        ConfigError: another density.
    """
    if not 0 < density <= 1:
        raise ConfigError(f"density must be in (0, 1], got {density!r}")
    if density == 1:
        return copy.deepcopy(model)
    if winograd:
        model = convert(model, "auto", sparsity=1 - density, example=example)
    else:
        model = copy.deepcopy(model)
    if any(isinstance(module, WinogradConv2d) for module in model.modules()):
        once = PruneConfig(sparsity=1 - density, criterion="white", start_step=1, end_step=1)
        NativePruner(model, once).step()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and getattr(module, "groups", 1) == 1:
            count = module.weight.numel()
            kept = max(1, round(density * count))
            module.weight[~keep_largest(module.weight.abs(), 1 - kept / count)] = 0
    return model
