"""Prune a trained network in one shot, from inputs alone: no labels, no training, in minutes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .calibration import winograd_layers
from .modes import evaluation
from .second_order import prune_network


@dataclass(frozen=True)
class Progress:
    """A layer is done.

    Attributes:
        layer: its name.
        lost: share of the power of its output that is lost on the first batch, in [0, 1] or
            slightly above.
        done, total: layers pruned so far, and in all.
        seconds: since the start.
    """

    layer: str
    lost: float
    done: int
    total: int
    seconds: float


def prune_one_shot(
    model: nn.Module,
    batches: Sequence[Any],
    sparsity: float | Mapping[str, float] = 0.8,
    structure: str = "unstructured",
    budget: str = "global",
    iterations: int = 60,
    progress: Callable[[Progress], None] | None = None,
) -> nn.Module:
    """Copy a converted network with its Winograd layers pruned and fitted to the dense outputs.

    Works on any network that ``convert`` made: classifiers, restorers, residual networks, grouped
    convolutions, layers that run several times. Layer by layer, it chooses which coefficients stay
    and solves for their values, so that the layer reproduces the dense network's outputs from the
    inputs that the layers pruned before it produce (:func:`.second_order.prune_network`). Masks are
    set, so the result can be fine-tuned as it is.

    Time grows with the cube and memory with the square of ``alpha^2 C/groups``, the unknowns of an
    output channel: FFDNet's ten layers 96 > 96 under F(4,3) take one to three minutes on one core;
    a layer of 512 channels under F(2,3) takes 270 MB for each of three matrices.

    Args:
        model: a network with Winograd layers; it is not changed. It runs in evaluation mode.
        batches: inputs, or tuples of positional arguments; no labels. A few hundred images for a
            classifier or some dozens of patches, so that each layer sees several thousand tiles.
        sparsity: share of zeros over all layers, in [0, 1); with budget "layer" also a dict by
            layer name.
        structure: the pattern that zeros keep to, one of ``config.PATTERNS``.
        budget: "global" gives more zeros to layers that harm the output less, "layer" gives all the
            same share.
        iterations: of the search for what stays; 40 are usually within a few percent of 100.
        progress: called after every layer.

    Returns:
        the pruned copy.

    Raises:
        PruneError: as :func:`.second_order.prune_network`.
    """
    pruned, start = copy.deepcopy(model), time.monotonic()
    total, done = len(winograd_layers(pruned)), 0

    def tell(layer: str, lost: float) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(Progress(layer, lost, done, total, time.monotonic() - start))

    with evaluation(pruned):
        prune_network(pruned, batches, sparsity, iterations, tell, structure, budget)
    return pruned
