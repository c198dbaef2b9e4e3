"""What is timed: some equal convolutions in a row, each with bias and ReLU.

A chain lets an engine keep its own layout between convolutions, as in a network; the time of one
convolution is the chain's, divided. Layers that change the number of channels are timed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import ConvShape
from .exact import direct_conv

LENGTH = 4
_LONG_CALL = 120e9  # FLOPs of a chain of four above which it is cut to two


@dataclass(frozen=True)
class Chain:
    """Input and layers.

    Attributes:
        x: float32 [N, C, H, W].
        weights: per convolution; filters float32 [K, C, 3, 3] or coefficients [alpha^2, K, C].
        biases: per convolution, float32 [K].
    """

    x: np.ndarray
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]

    def save(self, path: Path) -> None:
        """Write the arrays ``x``, ``w0``, ``b0``, ``w1`` ... for a worker."""
        arrays = {f"w{i}": w for i, w in enumerate(self.weights)}
        arrays |= {f"b{i}": b for i, b in enumerate(self.biases)}
        np.savez(path, x=self.x, **arrays)

    def exact(self, conv: Callable[..., np.ndarray], images: Sequence[int]) -> np.ndarray:
        """The answer for some images in float64; ``conv(x, weight, bias)`` is one convolution."""
        value = self.x[list(images)]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            value = np.maximum(conv(value, weight, bias), 0)
        return value


def chain_length(shape: ConvShape) -> int:
    """How many convolutions of ``shape`` are timed in a row."""
    if shape.c != shape.k:
        return 1
    return LENGTH if LENGTH * shape.direct_flops <= _LONG_CALL else LENGTH // 2


def make_input(shape: ConvShape, seed: int) -> np.ndarray:
    """Float32 [N, C, H, W], positive half of a normal distribution as after a ReLU."""
    rng = np.random.default_rng([seed, 1])
    return np.maximum(rng.standard_normal((shape.n, shape.c, shape.h, shape.w), np.float32), 0)


def make_biases(shape: ConvShape, seed: int, count: int) -> tuple[np.ndarray, ...]:
    """Biases of a chain, float32 [K] each."""
    rng = np.random.default_rng([seed, 2])
    return tuple(0.1 * rng.standard_normal(shape.k, np.float32) for _ in range(count))


def spatial_chain(shape: ConvShape, density: float, seed: int) -> Chain:
    """A chain of filters; a random share ``density`` of their weights is not zero."""
    rng = np.random.default_rng([seed, 3])
    size = (shape.k, shape.c, 3, 3)
    scale = np.sqrt(2 / (9 * shape.c * density))  # keeps the outputs' size from layer to layer
    count = chain_length(shape)
    weights = []
    for _ in range(count):
        weight = scale * rng.standard_normal(size, np.float32)
        if density < 1:
            weight *= rng.random(size, np.float32) < density
        weights.append(weight.astype(np.float32))
    return Chain(make_input(shape, seed), tuple(weights), make_biases(shape, seed, count))


def spatial_answer(chain: Chain, images: Sequence[int]) -> np.ndarray:
    """What a chain of filters computes for some images, in float64."""
    return chain.exact(direct_conv, images)


def checked_images(batch: int) -> list[int]:
    """Images of a batch that are compared: the first and the last."""
    return sorted({0, batch - 1})


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference over the largest value of ``want``."""
    return float(np.abs(got - want).max() / np.abs(want).max())
