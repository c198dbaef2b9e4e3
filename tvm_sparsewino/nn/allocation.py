"""How many zeros each layer takes, so that all layers together harm the output least.

A layer's harm at a share of zeros is the error of its output behind the best mask and values that
a short search finds, each output channel's error weighted by what the channel does to the
network's output. Harms of layers add up as long as they are small. The shares then follow from
equal marginal harm: no layer gives up a coefficient more cheaply than another would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import PruneError
from .least_squares import LeastSquares
from .sparse_solution import Keep

# Shares of zeros at which the harm is measured; 0 has none.
LEVELS = (0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
# Iterations of the search at each level; it goes on from the level before.
_ITERATIONS = 8
# Steps towards the best values on what the search keeps: without them small shares look too dear.
_REFINEMENT = 10
_STEPS = 490


@dataclass(frozen=True)
class Harm:
    """What pruning one layer does to the network's output.

    Attributes:
        coefficients: of the layer.
        errors: weighted squared error at each of ``LEVELS``, rising.
    """

    coefficients: int
    errors: tuple[float, ...]


@torch.no_grad()
def measure_harm(problem: LeastSquares, gain: Tensor, keep: Keep) -> Harm:
    """The harm of one layer.

    Args:
        problem: with the layer's own outputs as goals.
        gain: effect of the output channels on the network's output, [K].
        keep: what stays given scores and a share of zeros: the structure of zeros.
    """
    layer, total = problem.layer, np.zeros(len(LEVELS))
    for g, part in enumerate(gain.view(layer.groups, -1)):
        normalised = problem.normalised(g)
        for i, kept in enumerate(normalised.search(LEVELS, _ITERATIONS, part, keep)):
            off = normalised.refined(kept, _REFINEMENT) - normalised.old
            by_column = (off * (normalised.hessian @ off)).sum(0)
            total[i] += float((by_column * part.square()).sum())
    rising = np.maximum.accumulate(total) * problem.tiles
    return Harm(layer.weight.numel(), tuple(map(float, rising)))


def allocate(harms: Mapping[str, Harm], sparsity: float) -> dict[str, float]:
    """Shares of zeros per layer, ``sparsity`` over all of them, of least added harm.

    Raises:
        PruneError: more zeros than all layers can take.
    """
    if sparsity > LEVELS[-1]:
        raise PruneError(f"budget 'global' reaches {LEVELS[-1]:.0%} zeros, got {sparsity!r}")
    prices, sizes, names = [], [], []
    for name, harm in harms.items():
        price = np.array(list(_marginal(harm))) / harm.coefficients
        prices.append(np.maximum.accumulate(price))
        sizes.append(np.full(_STEPS, harm.coefficients / _STEPS * LEVELS[-1]))
        names += [name] * _STEPS
    order = np.argsort(np.concatenate(prices), kind="stable")
    size = np.concatenate(sizes)
    wanted = sparsity * sum(harm.coefficients for harm in harms.values())
    before = np.cumsum(size[order]) - size[order]
    taken = np.clip(wanted - before, 0, size[order])
    zeros = dict.fromkeys(harms, 0.0)
    for index, count in zip(order, taken, strict=True):
        zeros[names[index]] += float(count)
    return {n: min(count / harms[n].coefficients, LEVELS[-1]) for n, count in zeros.items()}


def _marginal(harm: Harm) -> Iterator[float]:
    """Added harm of each of ``_STEPS`` steps from 0 to the last level.

    Between levels the harm grows geometrically, below the first as the square.
    """
    errors = np.maximum(np.array(harm.errors), 1e-30)
    shares = np.linspace(0, LEVELS[-1], _STEPS + 1)
    curve = np.exp(np.interp(shares, LEVELS, np.log(errors)))
    low = shares < LEVELS[0]
    curve[low] = errors[0] * (shares[low] / LEVELS[0]) ** 2
    yield from np.diff(curve)
