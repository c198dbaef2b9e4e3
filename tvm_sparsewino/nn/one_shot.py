"""A sparse network from a trained one and some inputs: no labels, no training, in minutes."""

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
    """A copy of a converted network with sparse Winograd layers, fitted to the dense one's outputs.

    Works on any network of ``convert``: classifiers, restorers, residual networks, groups, layers
    that run several times. Layer by layer, what stays is chosen and its values are solved for so
    that the layer gives the dense network's outputs from the inputs that the layers pruned before
    it make (:func:`.second_order.prune_network`). The result is also a good start of fine-tuning:
    masks are set.

    Time goes with the cube and memory with the square of ``alpha^2 C/groups``, the unknowns of an
    output channel: FFDNet's ten layers 96 > 96 under F(4,3) take one to three minutes on one core,
    a layer of 512 channels under F(2,3) 270 MB for each of about four matrices.

    Args:
        model: a network with Winograd layers; it is not changed. Runs in evaluation mode.
        batches: inputs, or tuples of positional arguments; no labels. A few hundred images of a
            classifier or some dozens of patches, several thousand tiles in each layer.
        sparsity: share of zeros, in [0, 1), over all layers; per layer's name with budget "layer".
        structure: the pattern that zeros keep to, one of ``config.PATTERNS``.
        budget: "global": layers that harm the output less take more of the zeros; "layer": all take
            the same.
        iterations: of the search for what stays; 40 are usually within a few percent of 100.
        progress: called after every layer.

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
