"""The units in which Winograd coefficients are trained, by pruning method.

A layer's parameter is ``Q = scale * U``. Plain gradient descent on Q moves U by
``-rate / scale^2`` times U's own gradient, so a scale is a learning rate per coefficient. The
methods that train in the Winograd domain are choices of it:

* "plain": scale 1, U itself. Li, Park and Tang (arXiv:1702.08597).
* "gradient": scale ``(F / min F)^0.75``, which divides the gradient of U by ``(F / min F)^1.5``
  where F is the importance of the coordinate. J. Yu, J. Park and M. Naumov, "Spatial-Winograd
  Pruning Enabling Sparse Winograd Convolution", arXiv:1901.02132, section 3.2.
* "white": scale F, so that a unit step of any parameter changes the output equally under white
  input. What ``convert`` makes.

A scale measured on data is :func:`.calibration.calibrate`.

Momentum carries over exactly: it is linear in the gradient. Optimisers that normalise gradients
(Adam) see in "gradient" what they see in "plain", but for the size of their steps, and weight
decay acts on U with the scale of the gradient.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..cook_toom import CookToom
from ..errors import ConfigError
from .calibration import winograd_layers

# Exponent of the gradient's divisor that Yu, Park and Naumov settle on.
POWER = 1.5


def parametrise(model: nn.Module, kind: str) -> None:
    """Set the scale of every Winograd layer of ``model``; the function of the network stays.

    Call it before an optimiser has gathered momentum.

    Args:
        model: a network with Winograd layers.
        kind: "plain", "gradient" or "white"; "kept" changes nothing.

    Raises:
        ConfigError: another kind.
        PruneError: no Winograd layer.
    """
    if kind == "kept":
        return
    for layer in winograd_layers(model).values():
        layer.set_scale(torch.from_numpy(_scale(layer.algorithm, kind)).view(-1, 1, 1))


def _scale(algorithm: CookToom, kind: str) -> np.ndarray:
    importance = algorithm.importance()
    if kind == "plain":
        return np.ones_like(importance)
    if kind == "white":
        return importance
    if kind == "gradient":
        return (importance / importance.min()) ** (POWER / 2)
    raise ConfigError(f"parameters must be 'kept', 'plain', 'gradient' or 'white', got {kind!r}")
