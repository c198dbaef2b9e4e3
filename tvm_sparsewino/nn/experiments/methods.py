"""Ways to prune a trained classifier, by name: rows of the table of results."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from ...config import BUDGETS, PATTERNS, PruneConfig
from ...errors import ConfigError, PruneError
from ..calibration import calibrate, winograd_layers
from ..coarse import prune_best_of
from ..convert import convert
from ..filter_pruning import prune_filters
from ..modes import evaluation
from ..one_shot import prune_one_shot
from ..pruning import NativePruner
from ..winograd_relu import move_relus
from .settings import WHITENED, Pruning

ONE_SHOT, COARSE, WINOGRAD_RELU = "one-shot", "coarse", "winograd-relu"
# Name -> fields of PruneConfig, or arguments of what prunes at once. docs/pruning.md tells where
# each comes from.
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
    ONE_SHOT: {"budget": "global"},
    COARSE: {"structure": "kernel", "candidates": 20},
}
# Methods that prune before training starts, with what may be chosen.
_AT_ONCE = {
    ONE_SHOT: {"structure", "budget", "iterations"},
    COARSE: {"structure", "candidates"},
}
# Whole numbers among those choices, and the least of each.
_LEAST = {"iterations": 1, "candidates": 1}
_USUAL = Pruning()
# Not pruned at all: what the others are compared with.
UNPRUNED = ("dense", "continued")


def converted(dense: nn.Module, settings: Pruning, image: Tensor | None = None) -> nn.Module:
    """A copy of ``dense`` with Winograd layers in place of its convolutions, but for ``keep``.

    Args:
        dense: any network.
        settings: with ``tile`` and ``keep``.
        image: an input, for tile "auto".

    Raises:
        ConfigError: a name in ``keep`` that is no convolution, or a tile that ``convert`` refuses.
    """
    kept = {}
    for name in settings.keep:
        module = dict(dense.named_modules()).get(name)
        if not isinstance(module, nn.Conv2d):
            raise ConfigError(f"prune.keep: {name!r} is no convolution of the network")
        kept[name] = module
    tile = settings.tile
    if isinstance(tile, dict):
        tile = {int(size): m for size, m in tile.items()}
    model = convert(dense, tile, image, sparsity=settings.sparsity)
    for name, module in kept.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, copy.deepcopy(module))
    return model


def starting_point(
    dense: nn.Module, settings: Pruning, image: Tensor, batches: Sequence[Tensor] | None
) -> nn.Module:
    """The converted network that fine-tuning starts from.

    Args:
        dense: trained, in evaluation mode.
        settings: method and sparsity.
        image: one of the network's inputs, [1, C, S, S]; its values do not matter.
        batches: training images for measured scales. None gives a network whose weights, scales
            and masks are still to be loaded.

    Raises:
        ConfigError: an unknown method, or an option that there is not or that does not fit.
        PruneError: the network has no convolution that can be pruned, or for "winograd-relu" none
            with a ReLU of its own in front.
    """
    options = chosen_options(settings)
    if settings.filters:
        with evaluation(dense):
            dense = prune_filters(dense, settings.filters, (image,))
    model = converted(dense, settings, image)
    winograd_layers(model)
    if settings.method == WINOGRAD_RELU:
        model = move_relus(model)
        if not model.moved_relus:
            raise PruneError("no Winograd layer of the network has a ReLU to take over")
    if batches is None:
        return model
    if settings.method in _AT_ONCE:
        model = _at_once(model, dense, settings, batches)
    elif options.get("criterion") == "activation":
        calibrate(model, batches)
    return model


def _at_once(
    model: nn.Module, dense: nn.Module, settings: Pruning, batches: Sequence[Tensor]
) -> nn.Module:
    options = chosen_options(settings)
    if settings.method == ONE_SHOT:
        return prune_one_shot(model, batches, settings.sparsity, **options)
    with torch.no_grad(), evaluation(dense):
        wanted = [dense(x) for x in batches]

    def harm(network: nn.Module) -> float:
        with torch.no_grad():
            pairs = zip(batches, wanted, strict=True)
            return sum(float((network(x) - y).square().sum()) for x, y in pairs)

    with evaluation(model):
        prune_best_of(model, settings.sparsity, harm=harm, **options)
    return model


def chosen_options(settings: Pruning) -> dict[str, Any]:
    """The method's own options with those of the experiment over them.

    Raises:
        ConfigError: an unknown method or option, or for methods that prune at once a value that
            does not fit. Values of the others are :class:`~tvm_sparsewino.config.PruneConfig`'s.
    """
    method = settings.method
    if method not in METHODS:
        raise ConfigError(f"prune.method must be one of {(*METHODS, *UNPRUNED)}, got {method!r}")
    # Sparsity is a setting of its own.
    known = _AT_ONCE.get(method, {f.name for f in fields(PruneConfig)} - {"sparsity"})
    unknown = sorted(set(settings.options) - known)
    if unknown:
        raise ConfigError(f"prune.options: unknown {unknown}, there are {sorted(known)}")
    options = {**METHODS[method], **settings.options}
    if method in _AT_ONCE:
        for name, value in options.items():
            _check_value(name, value)
    return options


def _check_value(name: str, value: Any) -> None:
    """Of an option of a method that prunes at once."""
    if name in _LEAST:
        least = _LEAST[name]
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
        wanted = f"a whole number >= {least}"
    else:
        names = PATTERNS if name == "structure" else BUDGETS
        fits, wanted = value in names, f"one of {names}"
    if not fits:
        raise ConfigError(f"prune.options.{name} must be {wanted}, got {value!r}")


def check_schedule(settings: Pruning, steps: int) -> None:
    """Refuse a schedule over ``steps`` steps that :func:`pruner_of` would refuse or not look at.

    Raises:
        ConfigError: as :func:`prune_config`, a schedule of a method that has none, and an interval
            beside one that the method brings.
    """
    if "every" in METHODS.get(settings.method, {}) and settings.every != _USUAL.every:
        raise ConfigError(
            f"prune.every: {settings.method!r} brings its own interval, which prune.options.every "
            f"changes, got {settings.every!r}"
        )
    if settings.method not in _AT_ONCE:
        prune_config(settings, steps)
        return
    for name in ("start", "ramp", "every"):
        value = getattr(settings, name)
        if value != getattr(_USUAL, name):
            raise ConfigError(
                f"prune.{name} is for methods that prune while they train: "
                f"{settings.method!r} has pruned before, got {value!r}"
            )


def check_optimizer(settings: Pruning, optimizer: str) -> None:
    """Refuse an optimiser that the method's networks cannot be trained with.

    Raises:
        ConfigError: whitened coordinates of coefficients that come and go, or that there are not.
    """
    if optimizer == WHITENED and settings.method not in _AT_ONCE:
        raise ConfigError(
            f"tune.optimizer {WHITENED!r} takes zeros that stay where they are: "
            f"prune.method must be one of {tuple(_AT_ONCE)}, got {settings.method!r}"
        )


def pruner_of(model: nn.Module, settings: Pruning, steps: int) -> NativePruner | None:
    """What prunes a starting point while it trains; None where that is done already.

    Raises:
        ConfigError: an unknown option, or zeros that no step would bring.
    """
    if settings.method in _AT_ONCE:
        return None
    return NativePruner(model, prune_config(settings, steps))


def prune_config(settings: Pruning, steps: int) -> PruneConfig:
    """The schedule of a method over ``steps`` steps.

    Raises:
        ConfigError: an option that there is not or that does not fit, or no step to prune in.
    """
    options = chosen_options(settings)
    if steps < 1:
        raise ConfigError(f"method {settings.method!r} prunes while it trains: tune.epochs is 0")
    # At least one step of the schedule is left, however late it starts.
    begin = min(round(settings.start * steps), steps - 1)
    end = max(begin + 1, round(settings.ramp * steps))
    values = {"start_step": begin, "end_step": end, "every": settings.every, **options}
    return PruneConfig(sparsity=settings.sparsity, **values)
