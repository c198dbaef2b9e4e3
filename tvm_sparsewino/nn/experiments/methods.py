"""Ways to prune a trained classifier, by name: rows of the table of results."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from ...config import PruneConfig
from ...errors import ConfigError, PruneError
from ..calibration import calibrate, winograd_layers
from ..convert import convert
from ..one_shot import prune_one_shot
from ..pruning import NativePruner
from ..winograd_relu import move_relus
from .settings import Pruning

ONE_SHOT, WINOGRAD_RELU = "one-shot", "winograd-relu"
# Name -> fields of PruneConfig, or arguments of prune_one_shot; docs/pruning.md says where they
# come from.
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
    WINOGRAD_RELU: {"criterion": "activation"},
    ONE_SHOT: {"budget": "layer"},
}
_ONE_SHOT_OPTIONS = {"structure", "budget", "iterations"}
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


def starting_point(
    dense: nn.Module, settings: Pruning, batches: Sequence[Tensor] | None
) -> nn.Module:
    """The converted network that fine-tuning starts from.

    Args:
        dense: trained, in evaluation mode.
        settings: method and sparsity.
        batches: training images for measured scales. None gives a network whose weights, scales
            and masks are still to be loaded.

    Raises:
        ConfigError: an unknown method or option.
        PruneError: the network has no convolution that can be pruned, or for "winograd-relu" none
            with a ReLU of its own in front.
    """
    if settings.method not in METHODS:
        raise ConfigError(
            f"prune.method must be one of {(*METHODS, *UNPRUNED)}, got {settings.method!r}"
        )
    model = converted(dense, settings)
    winograd_layers(model)
    if settings.method == WINOGRAD_RELU:
        model = move_relus(model)
        if not model.moved_relus:
            raise PruneError("no Winograd layer of the network has a ReLU to take over")
    if batches is None:
        return model
    if settings.method == ONE_SHOT:
        unknown = sorted(set(settings.options) - _ONE_SHOT_OPTIONS)
        if unknown:
            raise ConfigError(
                f"prune.options: unknown {unknown}, there are {sorted(_ONE_SHOT_OPTIONS)}"
            )
        options = {**METHODS[ONE_SHOT], **settings.options}
        model = prune_one_shot(model, batches, settings.sparsity, **options)
    elif prune_config(settings, 1).criterion == "activation":
        calibrate(model, batches)
    return model


def pruner_of(model: nn.Module, settings: Pruning, steps: int) -> NativePruner | None:
    """What prunes a starting point while it trains; None where that is done already.

    Raises:
        ConfigError: an unknown option, or zeros that no step would bring.
    """
    if settings.method == ONE_SHOT:
        return None
    return NativePruner(model, prune_config(settings, steps))


def prune_config(settings: Pruning, steps: int) -> PruneConfig:
    """The schedule of a method over ``steps`` steps.

    Raises:
        ConfigError: an unknown option, or no step to prune in.
    """
    known = {f.name for f in fields(PruneConfig)}
    unknown = sorted(set(settings.options) - known)
    if unknown:
        raise ConfigError(f"prune.options: unknown {unknown}, there are {sorted(known)}")
    begin = round(settings.start * steps)
    end = max(begin + 1, round(settings.ramp * steps))
    if steps < 1:
        raise ConfigError(f"method {settings.method!r} prunes while it trains: tune.epochs is 0")
    values = {
        "start_step": begin,
        "end_step": end,
        "every": settings.every,
        **METHODS[settings.method],
    }
    return PruneConfig(sparsity=settings.sparsity, **{**values, **settings.options})
