"""Ways to prune a trained classifier, by name: rows of the table of results."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from ...config import PruneConfig
from ...errors import ConfigError
from ..calibration import calibrate, winograd_layers
from ..convert import convert
from ..pruning import NativePruner
from ..second_order import prune_network
from .settings import Pruning

# Name -> fields of PruneConfig. docs/pruning.md says what they are and where they come from.
METHODS: dict[str, dict[str, Any]] = {
    "activation": {"criterion": "activation"},
    "white": {"criterion": "white", "parameters": "white"},
    "gradient": {"criterion": "white", "parameters": "gradient"},
    "authors": {
        "criterion": "authors",
        "parameters": "plain",
        "l1": 1e-5,
        "max_threshold_factor": 100.0,
        "every": 1,
    },
    "balanced": {"criterion": "activation", "structure": "balanced"},
    "rows2": {"criterion": "activation", "structure": "rows2"},
    "rows4": {"criterion": "activation", "structure": "rows4"},
    "kernel": {"criterion": "activation", "structure": "kernel"},
    "one-shot": {},
}
# Not pruned at all: what the others are compared with.
UNPRUNED = ("dense", "continued")


def converted(dense: nn.Module, settings: Pruning) -> nn.Module:
    """A copy of ``dense`` with Winograd layers in place of its convolutions, but for ``keep``.

    Raises:
        ConfigError: a name in ``keep`` that is no convolution.
    """
    kept = {}
    for name in settings.keep:
        module = dict(dense.named_modules()).get(name)
        if not isinstance(module, nn.Conv2d):
            raise ConfigError(f"prune.keep: {name!r} is no convolution of the network")
        kept[name] = module
    model = convert(dense, settings.tile)
    for name, module in kept.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, copy.deepcopy(module))
    return model


def prepare(
    dense: nn.Module, settings: Pruning, batches: Sequence[Tensor], steps: int
) -> tuple[nn.Module, NativePruner | None]:
    """The network to fine-tune, and what prunes it meanwhile; None where that is done already.

    Args:
        dense: trained, in evaluation mode.
        settings: method and sparsity.
        batches: training images for measured scales.
        steps: of the fine-tuning.

    Raises:
        ConfigError: an unknown method or option, or zeros that no step would bring.
        PruneError: the network has no convolution that can be pruned.
    """
    if settings.method not in METHODS:
        raise ConfigError(
            f"prune.method must be one of {(*METHODS, *UNPRUNED)}, got {settings.method!r}"
        )
    model = converted(dense, settings)
    winograd_layers(model)
    if settings.method == "one-shot":
        if settings.options:
            raise ConfigError(f"method 'one-shot' takes no options, got {settings.options}")
        return prune_network(model, batches, settings.sparsity), None
    config = prune_config(settings, steps)
    if config.criterion == "activation":
        calibrate(model, batches)
    return model, NativePruner(model, config)


def prune_config(settings: Pruning, steps: int) -> PruneConfig:
    """The schedule of a method over ``steps`` steps.

    Raises:
        ConfigError: an unknown option, or no step to prune in.
    """
    known = {f.name for f in fields(PruneConfig)}
    unknown = sorted(set(settings.options) - known)
    if unknown:
        raise ConfigError(f"prune.options: unknown {unknown}, there are {sorted(known)}")
    end = max(1, round(settings.ramp * steps))
    if steps < 1:
        raise ConfigError(f"method {settings.method!r} prunes while it trains: tune.epochs is 0")
    values = {"end_step": end, "every": settings.every, **METHODS[settings.method]}
    return PruneConfig(sparsity=settings.sparsity, **{**values, **settings.options})
