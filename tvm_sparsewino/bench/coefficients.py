"""Random Winograd coefficients with zeros, standing in for natively pruned ones."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..config import ConvShape
from ..cook_toom import cook_toom
from ..planner import winograd_coefficients
from ..structure import shared_rows
from .chain import Chain, chain_length, make_biases, make_input
from .exact import winograd_conv

_SAMPLE = 24  # pixels per side of the map that the outputs' size is found on


def winograd_chain(
    shape: ConvShape, m: int, density: float, seed: int, structure: str = "unstructured"
) -> Chain:
    """A chain of coefficients of F(m, 3), a share ``density`` of which is not zero.

    The convolutions differ in the order of their input channels only. So each reads weights of
    its own, as in a network, while one compiled kernel serves them all.
    """
    rng = np.random.default_rng([seed, 4])
    u = _unpruned(shape.k, shape.c, m, seed) * nonzeros(shape, m, density, structure, rng)
    u /= np.float32(_output_size(u, m, rng))
    orders = [np.arange(shape.c)]
    orders += [rng.permutation(shape.c) for _ in range(chain_length(shape) - 1)]
    weights = tuple(np.take(u, order, axis=2) for order in orders)
    return Chain(make_input(shape, seed), weights, make_biases(shape, seed, len(weights)))


@lru_cache(maxsize=1)  # the densities of a tile follow one another
def _unpruned(k: int, c: int, m: int, seed: int) -> np.ndarray:
    """Coefficients of random filters, [alpha^2, K, C]."""
    filters = np.random.default_rng([seed, 5]).standard_normal((k, c, 3, 3), np.float32)
    return winograd_coefficients(filters, m)


def nonzeros(
    shape: ConvShape, m: int, density: float, structure: str, rng: np.random.Generator
) -> np.ndarray:
    """Where coefficients are not zero, bool [alpha^2, K, C], in a pattern of ``structure``."""
    coordinates, k, c = cook_toom(m, 3).coordinates, shape.k, shape.c
    if density >= 1:
        return np.ones((coordinates, k, c), bool)
    if structure == "kernel":
        kept = rng.random((1, k, c), np.float32) < density
        return np.broadcast_to(kept, (coordinates, k, c))
    if structure == "balanced":
        order = rng.random((coordinates, k, c), np.float32).argsort(axis=2)
        return order < max(1, round(density * c))
    width = shared_rows(structure)
    kept = rng.random((coordinates, -(-k // width), c), np.float32) < density
    return kept.repeat(width, axis=1)[:, :k]


def _output_size(u: np.ndarray, m: int, rng: np.random.Generator) -> float:
    """Rms of what the coefficients make of a small input; pruned ones make more than dense ones."""
    x = np.maximum(rng.standard_normal((1, u.shape[2], _SAMPLE, _SAMPLE)), 0)
    out = winograd_conv(x, u, np.zeros(u.shape[1]), cook_toom(m, 3))
    return float(np.sqrt(np.mean(out**2))) or 1.0
