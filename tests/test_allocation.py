"""Zeros per layer of least added harm."""

from itertools import permutations

import numpy as np
import pytest
import torch

from tvm_sparsewino.errors import PruneError
from tvm_sparsewino.nn import WinogradConv2d
from tvm_sparsewino.nn.allocation import LEVELS, Harm, allocate, measure_harm
from tvm_sparsewino.nn.least_squares import LeastSquares
from tvm_sparsewino.nn.sparse_solution import keep_largest


def harm(coefficients, size, power=2.0):
    return Harm(coefficients, tuple(size * level**power for level in LEVELS))


def total(harms, shares):
    """Harm of an allocation, by the formula that the harms were made with."""
    return sum(h.errors[-1] * (shares[n] / LEVELS[-1]) ** 2 for n, h in harms.items())


def test_equal_layers_share_equally_whatever_their_size():
    # A layer twice as large, with twice the harm, is two layers.
    shares = allocate({"a": harm(1000, 1.0), "b": harm(2000, 2.0)}, 0.6)
    assert list(shares.values()) == pytest.approx([0.6, 0.6], abs=0.02)


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8, 0.95])
def test_no_exchange_of_zeros_between_layers_is_better(sparsity):
    harms = {"a": harm(1000, 5.0), "b": harm(3000, 1.0), "c": harm(500, 0.2)}
    shares = allocate(harms, sparsity)
    count = sum(shares[n] * h.coefficients for n, h in harms.items())
    assert count == pytest.approx(sparsity * 4500, abs=1e-6)
    best = total(harms, shares)
    for give, take in permutations(harms, 2):
        moved = dict(shares)
        moved[give] -= 50 / harms[give].coefficients
        moved[take] += 50 / harms[take].coefficients
        if min(moved.values()) >= 0 and max(moved.values()) <= LEVELS[-1]:
            # Interpolation between the levels is geometric, the formula is a square: 1 %.
            assert total(harms, moved) > 0.99 * best


def test_harmless_layers_go_first_and_the_last_level_is_the_end():
    shares = allocate({"a": harm(1000, 1.0), "b": Harm(1000, (0.0,) * len(LEVELS))}, 0.4)
    assert shares["b"] == pytest.approx(0.8, abs=0.01) and shares["a"] < 0.01
    with pytest.raises(PruneError, match=r"'global' reaches 98% zeros, got 0\.99"):
        allocate({"a": harm(10, 1.0)}, 0.99)


def test_measured_harm_rises_and_counts_channels_by_their_gain():
    layer = WinogradConv2d(6, 6, 3, 2, padding=1, groups=2, bias=False)
    x = torch.randn(4, 6, 12, 12)
    problem = LeastSquares(layer)
    problem.add(x, layer(x).detach())
    gain = torch.ones(6)
    found = measure_harm(problem, gain, keep_largest)
    assert found.coefficients == layer.weight.numel()
    assert len(found.errors) == len(LEVELS)
    assert (np.diff(found.errors) >= 0).all() and found.errors[0] > 0
    doubled = measure_harm(problem, 2 * gain, keep_largest)
    assert doubled.errors == pytest.approx([4 * e for e in found.errors], rel=1e-3)
