"""Scales and shifts of channels as arithmetic on arrays, for Relax and for Relay alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def norm_scale_and_shift(
    attrs: Any, constants: Sequence[np.ndarray | None], channels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """An inference BatchNorm as ``x * scale + shift``, both float64 [channels].

    ``scale = gamma / sqrt(variance + epsilon)`` and ``shift = beta - mean * scale``.

    Args:
        attrs: its epsilon, and whether it scales and centres.
        constants: gamma, beta, mean and variance; None for what is not constant.
        channels: how many it normalises.

    Returns:
        None when a constant is missing, is not float32 [channels], or gives no real root.
    """
    if any(c is None or c.dtype != np.float32 or c.shape != (channels,) for c in constants):
        return None
    gamma, beta, mean, variance = (c.astype(np.float64) for c in constants)
    if (variance + float(attrs.epsilon) <= 0).any():
        return None
    scale = 1.0 / np.sqrt(variance + float(attrs.epsilon))
    if attrs.scale:
        scale = scale * gamma
    shift = -mean * scale
    return scale, shift + beta if attrs.center else shift


def scaled_weight(weight: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """Weights of a layer whose output channels are multiplied with ``scale``, in float64.

    Args:
        weight: spatial or Winograd weights, which are linear in the filter and scale the same way.
        scale: float64 [channels].
        axis: where the output channels are.
    """
    shape = [1] * weight.ndim
    shape[axis] = -1
    return weight.astype(np.float64) * scale.reshape(shape)
