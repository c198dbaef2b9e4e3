"""The oracle itself: against a convolution written out pixel by pixel, and against itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.reference import conv2d, winograd_conv2d, winograd_weight

# float64 rounding, amplified by the transforms of the largest tile tried here, F(6,3).
TOLERANCE = 1e-10


def written_out(x, weight, bias, padding, stride, dilation, groups):
    """Convolution with nothing but scalar arithmetic."""
    n, _, h, w = x.shape
    k, cg, r, s = weight.shape
    top, left, bottom, right = padding
    oh = (h + top + bottom - dilation[0] * (r - 1) - 1) // stride[0] + 1
    ow = (w + left + right - dilation[1] * (s - 1) - 1) // stride[1] + 1
    out = np.zeros((n, k, oh, ow))
    for image, o, y, z in np.ndindex(out.shape):
        total = 0.0 if bias is None else float(bias[o])
        for c, i, j in np.ndindex(cg, r, s):
            py, pz = y * stride[0] + i * dilation[0] - top, z * stride[1] + j * dilation[1] - left
            if 0 <= py < h and 0 <= pz < w:
                channel = o // (k // groups) * cg + c
                total += float(x[image, channel, py, pz]) * float(weight[o, c, i, j])
        out[image, o, y, z] = total
    return out


@pytest.mark.parametrize(
    ("shape", "kernel", "padding", "stride", "dilation", "groups"),
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), (0, 0, 0, 0), (1, 1), (1, 1), 1),
        ((2, 3, 5, 4), (2, 3, 3, 3), (1, 1, 1, 1), (1, 1), (1, 1), 1),
        ((1, 4, 6, 5), (6, 2, 3, 3), (2, 0, 1, 3), (1, 1), (1, 1), 2),
        ((1, 2, 7, 6), (2, 1, 3, 2), (0, 1, 2, 0), (2, 3), (1, 1), 2),
        ((1, 2, 9, 8), (3, 2, 2, 3), (1, 2, 0, 1), (2, 1), (3, 2), 1),
    ],
)
def test_direct_against_scalar_arithmetic(shape, kernel, padding, stride, dilation, groups, rng):
    x, w = rng.standard_normal(shape), rng.standard_normal(kernel)
    for bias in (None, rng.standard_normal(kernel[0])):
        out = conv2d(x, w, bias, padding, stride, dilation, groups)
        expected = written_out(x, w, bias, padding, stride, dilation, groups)
        assert out.dtype == np.float64
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-13)


@given(
    m=st.integers(1, 6),
    r=st.integers(1, 5),
    n=st.integers(1, 2),
    h=st.integers(1, 11),
    w=st.integers(1, 11),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 3),
    sides=st.tuples(*[st.integers(0, 4)] * 4),
)
def test_winograd_is_direct_for_spatial_weights(m, r, n, h, w, per_group, groups, sides):
    padding = tuple(min(p, r - 1) for p in sides)
    h, w = max(h, r), max(w, r)
    rng = np.random.default_rng(m * r * h * w)
    x = rng.standard_normal((n, per_group[0] * groups, h, w)).astype(np.float32)
    weight = rng.standard_normal((per_group[1] * groups, per_group[0], r, r))
    bias = rng.standard_normal(len(weight))
    algorithm = cook_toom(m, r)
    u = winograd_weight(weight, algorithm)
    assert u.shape == ((m + r - 1) ** 2, *weight.shape[:2])
    out = winograd_conv2d(x, u, algorithm, bias, padding, groups)
    expected = conv2d(x, weight, bias, padding, groups=groups)
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE * max(1, np.abs(out).max()))


def test_one_tile_of_native_weights_by_the_definition(rng):
    """Coefficients outside the image of G: Y = A^T [sum_c U . (B^T d B)] A, tile by tile."""
    algorithm = cook_toom(2, 3)
    bt, _, at = algorithm.arrays()
    x, u = rng.standard_normal((1, 2, 4, 6)), rng.standard_normal((16, 1, 2))
    out = winograd_conv2d(x, u, algorithm)
    for tile in range(2):
        d = x[0, :, :, 2 * tile : 2 * tile + 4]
        product = sum(u[:, 0, c].reshape(4, 4) * (bt @ d[c] @ bt.T) for c in range(2))
        np.testing.assert_allclose(
            out[0, 0, :, 2 * tile : 2 * tile + 2], at @ product @ at.T, rtol=0, atol=1e-12
        )


def test_tiles_start_at_the_padded_corner(rng):
    """Padding moves the tiles: the same as a map that has its zeros already."""
    algorithm = cook_toom(4, 3)
    x, u = rng.standard_normal((1, 2, 6, 7)), rng.standard_normal((36, 3, 2))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (2, 0)))
    np.testing.assert_array_equal(
        winograd_conv2d(x, u, algorithm, padding=(1, 2, 2, 0)),
        winograd_conv2d(padded, u, algorithm),
    )


X = np.zeros((1, 4, 5, 5))


@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [(X, (4, 3), 1), (X, (4, 4), 2), (X, (3, 2), 2), (X, (4, 4), 0), (X, (4, 4), -1)],
)
def test_channels_that_do_not_match_are_refused(x, weight, groups):
    with pytest.raises(ShapeError, match=f"4 input and {weight[0]} output channels do not fit"):
        conv2d(x, np.zeros((*weight, 3, 3)), groups=groups)
    with pytest.raises(ShapeError, match=f"4 input and {weight[0]} output channels do not fit"):
        winograd_conv2d(x, np.zeros((16, *weight)), cook_toom(2, 3), groups=groups)


def test_maps_smaller_than_the_filter_are_refused():
    with pytest.raises(ShapeError, match="5x3 is smaller than the filter"):
        conv2d(X[..., :3], np.zeros((1, 4, 3, 4)))
    with pytest.raises(ShapeError, match=r"2x5 with padding \(0, 0, 0, 0\) is smaller"):
        winograd_conv2d(X[:, :, :2], np.zeros((16, 1, 4)), cook_toom(2, 3))
    with pytest.raises(ShapeError, match=r"5x1 with padding \(1, 1, 1, 0\) is smaller"):
        winograd_conv2d(X[..., :1], np.zeros((16, 1, 4)), cook_toom(2, 3), padding=(1, 1, 1, 0))


@pytest.mark.parametrize("shape", [(36, 1, 4), (16, 4), (4, 4, 1, 4)])
def test_coefficients_of_another_algorithm_are_refused(shape):
    with pytest.raises(ShapeError, match=r"F\(2,3\) needs \[16, K, C\] coefficients"):
        winograd_conv2d(X, np.zeros(shape), cook_toom(2, 3))
