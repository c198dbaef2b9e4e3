"""Coarse pruning: of many random masks, take the one that harms least.

S. Anwar, W. Sung, "Compact Deep Convolutional Neural Networks With Coarse Pruning"
(arXiv:1610.09639): whole feature maps, then whole kernels are pruned; the mask is the best of N
random ones by the error on held-out data. Unlike magnitudes, that error reflects how maps work
together. Zeros of this kind survive the Winograd transform in all coordinates at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..config import PATTERNS
from ..errors import PruneError
from .calibration import winograd_layers
from .masks import choose_masks


@dataclass(frozen=True)
class Choice:
    """What :func:`prune_best_of` did in one layer.

    Attributes:
        layer: its name.
        harm: of the mask that was taken.
        mean_harm: over all candidates.
    """

    layer: str
    harm: float
    mean_harm: float


def prune_best_of(
    model: nn.Module,
    sparsity: float,
    structure: str,
    harm: Callable[[nn.Module], float],
    candidates: int = 50,
    seed: int = 0,
) -> list[Choice]:
    """Give every Winograd layer of ``model`` the best of N random masks, one after the other.

    Coefficients that are masked already stay masked. As the paper does, call it with rising
    sparsity, first for feature maps ("outputs" or "inputs") and then for kernels ("kernel"), and
    train in between.

    Args:
        model: a network with Winograd layers; masks are set in place.
        sparsity: share of zeros in each layer, in [0, 1).
        structure: the units that are pruned as a whole, one of ``config.PATTERNS``.
        harm: the error of a network on held-out data; lower is better.
        candidates: N, at least 1.
        seed: of the masks.

    Returns:
        one choice per layer, in the order of the model.

    Raises:
        PruneError: no Winograd layer, an unknown structure, a sparsity or number of candidates out
            of range, or a harm that is not a number for every candidate.
    """
    if structure not in PATTERNS:
        raise PruneError(f"structure must be one of {PATTERNS}, got {structure!r}")
    if not 0 <= sparsity < 1:
        raise PruneError(f"sparsity must be in [0, 1), got {sparsity!r}")
    if candidates < 1:
        raise PruneError(f"candidates must be >= 1, got {candidates!r}")
    generator, choices = torch.Generator().manual_seed(seed), []
    for name, layer in winograd_layers(model).items():
        before, best, harms = layer.mask, None, []
        for _ in range(candidates):
            scores = torch.rand(layer.weight.shape, generator=generator).to(layer.weight)
            if before is not None:
                scores = torch.where(before, scores, -1.0)
            mask = choose_masks({"": scores}, {"": layer.groups}, sparsity, structure, "layer")[""]
            layer.set_mask(mask if before is None else mask & before)
            value = float(harm(model))
            if not math.isnan(value) and (best is None or value < best[0]):
                best = value, layer.mask
            harms.append(value)
        if best is None:
            raise PruneError(f"layer {name!r}: the harm is no number for any mask")
        layer.set_mask(best[1])
        choices.append(Choice(name, best[0], sum(harms) / len(harms)))
    return choices
