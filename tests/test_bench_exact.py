"""The float64 convolutions by matrix products against the oracle."""

import numpy as np
import pytest

from tvm_sparsewino import reference
from tvm_sparsewino.bench.exact import direct_conv, winograd_conv
from tvm_sparsewino.cook_toom import cook_toom

SAME = (1, 1, 1, 1)
ROUNDING = 1e-12  # two orders of summation in float64


@pytest.mark.parametrize("size", [(1, 3, 5, 7, 4), (2, 4, 8, 6, 3)], ids=str)
def test_direct(rng, size):
    n, c, h, w, k = size
    x, bias = rng.standard_normal((n, c, h, w)), rng.standard_normal(k)
    weight = rng.standard_normal((k, c, 3, 3))
    want = reference.conv2d(x, weight, bias, SAME)
    assert np.abs(direct_conv(x, weight, bias) - want).max() < ROUNDING * np.abs(want).max()


@pytest.mark.parametrize("m", [2, 4, 6])
@pytest.mark.parametrize("size", [(1, 3, 5, 7, 4), (2, 4, 8, 6, 3), (1, 1, 12, 1, 2)], ids=str)
def test_winograd(rng, m, size):
    """Coefficients outside of the image of G, whose rows and columns are not alike."""
    n, c, h, w, k = size
    x, bias = rng.standard_normal((n, c, h, w)), rng.standard_normal(k)
    u = rng.standard_normal(((m + 2) ** 2, k, c))
    want = reference.winograd_conv2d(x, u, cook_toom(m, 3), bias, SAME)
    got = winograd_conv(x, u, bias, cook_toom(m, 3))
    assert np.abs(got - want).max() < ROUNDING * np.abs(want).max()
