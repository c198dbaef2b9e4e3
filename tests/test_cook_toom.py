"""The Winograd algebra: known matrices, proofs, points, importance and the error estimate."""

import dataclasses
from fractions import Fraction as Q
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparsewino import reference
from tvm_sparsewino.cook_toom import (
    INFINITY,
    canonical_points,
    cook_toom,
    points_from_text,
    points_to_text,
)
from tvm_sparsewino.errors import ConfigError

KNOWN = {
    (2, 3): (
        "1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 -1 0 1",
        "1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1",
        "1 1 1 0; 0 1 -1 1",
    ),
    # Points 0, 1, -1, 2, -2 and infinity: the matrices of Lavin and Gray, section 4.3.
    (4, 3): (
        "4 0 -5 0 1 0; 0 -4 -4 1 1 0; 0 4 -4 -1 1 0; 0 -2 -1 2 1 0; 0 2 -1 -2 1 0; 0 4 0 -5 0 1",
        "1/4 0 0; -1/6 -1/6 -1/6; -1/6 1/6 -1/6; 1/24 1/12 1/6; 1/24 -1/12 1/6; 0 0 1",
        "1 1 1 1 1 0; 0 1 -1 2 -2 0; 0 1 1 4 4 0; 0 1 -1 8 -8 1",
    ),
    # Only the first rows: they fix the points 0, +-1, +-2, +-1/2 and the scaling.
    (6, 3): (
        "1 0 -21/4 0 21/4 0 -1 0; 0 1 1 -17/4 -17/4 1 1 0; 0 -1 1 17/4 -17/4 -1 1 0;"
        "0 1/2 1/4 -5/2 -5/4 2 1 0",
        "1 0 0; -2/9 -2/9 -2/9; -2/9 2/9 -2/9; 1/90 1/45 2/45",
        "1 1 1 1 1 1 1 0; 0 1 -1 2 -2 1/2 -1/2 0",
    ),
}
# Every (m, r) with at most 12 points, the ends and the sizes networks use among them.
SIZES = [(m, r) for m in range(1, 9) for r in range(1, 8) if m + r <= 12]


def matrix(text):
    return tuple(tuple(Q(c) for c in row.split()) for row in text.split(";"))


@pytest.mark.parametrize("size", KNOWN, ids=str)
def test_known_matrices(size):
    algorithm = cook_toom(*size)
    for made, known in zip((algorithm.bt, algorithm.g, algorithm.at), KNOWN[size], strict=True):
        rows = matrix(known)
        assert made[: len(rows)] == rows


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_proof_and_sizes(m, r):
    algorithm = cook_toom(m, r)
    algorithm.prove()
    assert algorithm.alpha == m + r - 1
    assert algorithm.coordinates == algorithm.alpha**2
    assert algorithm.is_canonical
    assert str(algorithm) == f"F({m},{r})"
    shapes = [a.shape for a in algorithm.arrays()]
    alpha = algorithm.alpha
    assert shapes == [(alpha, alpha), (alpha, r), (m, alpha)]


@given(m=st.integers(1, 5), r=st.integers(1, 5), data=st.data())
def test_any_distinct_points_give_a_correlation(m, r, data):
    fractions = st.fractions(-3, 3, max_denominator=4)
    count = m + r - 2
    points = tuple(data.draw(st.lists(fractions, min_size=count, max_size=count, unique=True)))
    algorithm = cook_toom(m, r, points)
    g = [Q(data.draw(st.integers(-5, 5))) for _ in range(r)]
    d = [Q(data.draw(st.integers(-5, 5))) for _ in range(m + r - 1)]

    def times(rows, vector):
        return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in rows]

    products = [a * b for a, b in zip(times(algorithm.g, g), times(algorithm.bt, d), strict=True)]
    expected = [sum(g[k] * d[i + k] for k in range(r)) for i in range(m)]
    assert times(algorithm.at, products) == expected
    assert algorithm.is_canonical == (points == canonical_points(m, r))


@pytest.mark.parametrize("part", ["bt", "g", "at"])
def test_a_broken_algorithm_is_refused(part):
    algorithm = cook_toom(4, 3)
    rows = [list(row) for row in getattr(algorithm, part)]
    rows[1][1] += Q(1, 1000)
    broken = dataclasses.replace(algorithm, **{part: tuple(map(tuple, rows))})
    with pytest.raises(ArithmeticError, match=r"F\(4,3\): output .* gives"):
        broken.prove()


def test_canonical_points():
    text = points_to_text(canonical_points(8, 3))
    assert text == ("0", "1", "-1", "2", "-2", "1/2", "-1/2", "3/4", "-3/4", INFINITY)
    longest = canonical_points(16, 8)
    assert len(set(longest)) == len(longest) == 22
    assert canonical_points(1, 1) == ()
    for m in range(1, 8):
        assert canonical_points(m + 1, 3)[: m + 1] == canonical_points(m, 3)


@given(st.lists(st.fractions(), unique=True))
def test_points_as_text(points):
    text = points_to_text(tuple(points))
    assert text[-1] == INFINITY
    assert all(isinstance(t, str) for t in text)
    assert points_from_text(text) == tuple(points)
    assert points_from_text(list(text)) == tuple(points)


@pytest.mark.parametrize("text", [(), ("0", "1"), ("inf", "0"), [], ("0", "inf", "1")])
def test_points_without_infinity_last_are_refused(text):
    with pytest.raises(ConfigError, match="points must end with 'inf'"):
        points_from_text(text)


@pytest.mark.parametrize("point", ["one", "", "1/0", None, "inf", "nan"])
def test_points_that_are_no_fractions_are_refused(point):
    with pytest.raises(ConfigError, match="points must be fractions"):
        points_from_text(("0", point, "inf"))


@pytest.mark.parametrize(("m", "r"), [(0, 3), (2, 0), (-1, 3), (2.0, 3), ("2", 3), (2, None)])
def test_sizes_that_are_refused(m, r):
    for make in (canonical_points, cook_toom):
        with pytest.raises(ConfigError, match=r"F\(m, r\) needs positive integers"):
            make(m, r)


def test_wrong_numbers_of_points_and_equal_points_are_refused():
    with pytest.raises(ConfigError, match=r"F\(2,3\) needs 3 finite points, got 2"):
        cook_toom(2, 3, (Q(0), Q(1)))
    with pytest.raises(ConfigError, match=r"F\(2,3\) needs distinct points"):
        cook_toom(2, 3, (Q(0), Q(1), Q(1)))


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (2, 5)])
def test_importance_is_the_gain_under_white_input(m, r, rng):
    """Against its meaning, by sampling: 4000 samples leave about 3 % of noise."""
    algorithm = cook_toom(m, r)
    bt, _, at = algorithm.arrays()
    d = rng.standard_normal((4000, algorithm.alpha, algorithm.alpha))
    v = (bt @ d @ bt.T).reshape(len(d), -1)
    columns = np.stack([np.outer(a, b) for a in at.T for b in at.T])
    gain = np.sqrt((v**2).mean(0) * (columns**2).sum((1, 2)))
    np.testing.assert_allclose(algorithm.importance(), gain, rtol=0.1)
    np.testing.assert_allclose(algorithm.output_gain() ** 2, (columns**2).sum((1, 2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("m", "r", "spread"), [(2, 3, 2.0), (4, 3, 20.24), (6, 3, 313.6), (4, 5, 19.53)]
)
def test_spread_of_the_importance(m, r, spread):
    """2x and 20x are those of Yu, Park and Naumov; the last two belong to our points."""
    importance = cook_toom(m, r).importance()
    assert importance.max() / importance.min() == pytest.approx(spread, rel=1e-3)


def float32_error(m, r, channels, rng):
    """Max error / max |output| of a float32 Winograd convolution against a float64 direct one."""
    algorithm, tiles, k = cook_toom(m, r), 6, 8
    alpha, side = algorithm.alpha, tiles * m + r - 1
    x = rng.standard_normal((1, channels, side, side)).astype(np.float32)
    w = rng.standard_normal((k, channels, r, r)).astype(np.float32)
    exact = reference.conv2d(x, w)[0]
    u = reference.winograd_weight(w, algorithm).astype(np.float32)
    bt, _, at = algorithm.arrays(np.float32)
    d = np.lib.stride_tricks.sliding_window_view(x[0], (alpha, alpha), axis=(1, 2))[:, ::m, ::m]
    v = (bt @ np.ascontiguousarray(d) @ bt.T).reshape(channels, tiles**2, alpha**2)
    product = np.zeros((tiles**2, alpha**2, k), np.float32)
    for c in range(channels):
        product += v[c, :, :, None] * u[None, :, :, c]
    product = product.reshape(tiles, tiles, alpha, alpha, k).transpose(4, 0, 1, 2, 3)
    out = (at @ product @ at.T).transpose(0, 1, 3, 2, 4).reshape(exact.shape)
    assert out.dtype == np.float32
    return np.abs(out - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize(
    ("m", "r"), [(2, 3), (3, 3), (4, 3), (6, 3), (8, 3), (2, 5), (4, 5), (2, 7), (4, 7)]
)
def test_error_estimate_is_within_a_factor_of_three(m, r, rng):
    ratio = float32_error(m, r, 64, rng) / cook_toom(m, r).error_estimate(64)
    assert 1 / 3 < ratio < 3


def test_error_estimate_grows_with_tile_and_channels():
    for a, b in pairwise((2, 3, 4, 6, 8)):
        assert cook_toom(a, 3).error_estimate() < cook_toom(b, 3).error_estimate()
    assert cook_toom(4, 3).error_estimate(8) < cook_toom(4, 3).error_estimate(512)
