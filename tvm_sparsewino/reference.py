"""The slow, obvious oracle: direct and Winograd convolution in NumPy float64.

Everything else in the project is checked against this file. Nothing here is fast, and nothing
here shares code with the kernels.
"""

from __future__ import annotations

import numpy as np

from .cook_toom import CookToom
from .errors import ShapeError

Padding = tuple[int, int, int, int]


def _padded(x: np.ndarray, padding: Padding, extra: tuple[int, int] = (0, 0)) -> np.ndarray:
    top, left, bottom, right = padding
    pads = ((0, 0), (0, 0), (top, bottom + extra[0]), (left, right + extra[1]))
    return np.pad(np.asarray(x, np.float64), pads)


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    padding: Padding = (0, 0, 0, 0),
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Direct convolution: x [N, C, H, W], weight [K, C/groups, R, S] -> float64 [N, K, OH, OW].

    Raises:
        ShapeError: channels do not match, or the map is smaller than the filter.
    """
    weight = np.asarray(weight, np.float64)
    k, cg, r, s = weight.shape
    _check_groups(x.shape[1], k, cg, groups)
    xp = _padded(x, padding)
    oh = (xp.shape[2] - (r - 1) * dilation[0] - 1) // stride[0] + 1
    ow = (xp.shape[3] - (s - 1) * dilation[1] - 1) // stride[1] + 1
    if oh < 1 or ow < 1:
        raise ShapeError(f"a padded map {xp.shape[2]}x{xp.shape[3]} is smaller than the filter")
    out = np.zeros((x.shape[0], k, oh, ow))
    kg = k // groups
    for g in range(groups):
        xg, wg = xp[:, g * cg : (g + 1) * cg], weight[g * kg : (g + 1) * kg]
        for i in range(r):
            for j in range(s):
                y0, x0 = i * dilation[0], j * dilation[1]
                rows = slice(y0, y0 + (oh - 1) * stride[0] + 1, stride[0])
                cols = slice(x0, x0 + (ow - 1) * stride[1] + 1, stride[1])
                out[:, g * kg : (g + 1) * kg] += np.einsum(
                    "nchw,kc->nkhw", xg[:, :, rows, cols], wg[:, :, i, j]
                )
    return out if bias is None else out + np.asarray(bias, np.float64)[:, None, None]


def winograd_weight(weight: np.ndarray, algorithm: CookToom) -> np.ndarray:
    """Spatial weight [K, C/groups, r, r] -> U = G w G^T, float64 [alpha^2, K, C/groups]."""
    g = algorithm.arrays()[1]
    u = np.einsum("ip,kcpq,jq->ijkc", g, np.asarray(weight, np.float64), g)
    return u.reshape(algorithm.coordinates, *weight.shape[:2])


def winograd_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    algorithm: CookToom,
    bias: np.ndarray | None = None,
    padding: Padding = (0, 0, 0, 0),
    groups: int = 1,
    relu: bool = False,
) -> np.ndarray:
    """Winograd convolution with coefficients U [alpha^2, K, C/groups] -> float64 [N, K, OH, OW].

    The coefficients may lie outside the image of G (Winograd-native weights): the result is then
    defined by the tiles, which start at the top left corner of the padded map.

    With ``relu`` negative transformed inputs count as zero: a Winograd-ReLU layer (X. Liu, J. Pool,
    S. Han, W. Dally, "Efficient Sparse-Winograd Convolutional Neural Networks", arXiv:1802.06367).

    Raises:
        ShapeError: coefficients of another algorithm, channels that do not match, or a map that
            is smaller than the filter.
    """
    m, r, alpha = algorithm.m, algorithm.r, algorithm.alpha
    weight = np.asarray(weight, np.float64)
    if weight.ndim != 3 or weight.shape[0] != algorithm.coordinates:
        raise ShapeError(f"{algorithm} needs [{alpha**2}, K, C] coefficients, got {weight.shape}")
    n, c, h, w = x.shape
    k, cg = weight.shape[1:]
    _check_groups(c, k, cg, groups)
    oh, ow = h + padding[0] + padding[2] - r + 1, w + padding[1] + padding[3] - r + 1
    if oh < 1 or ow < 1:
        raise ShapeError(f"a map {h}x{w} with padding {padding} is smaller than the filter {r}")
    ty, tx = -(-oh // m), -(-ow // m)
    xp = _padded(x, padding, (ty * m - oh, tx * m - ow))
    bt, _, at = algorithm.arrays()
    tiles = np.lib.stride_tricks.sliding_window_view(xp, (alpha, alpha), axis=(2, 3))
    tiles = tiles[:, :, ::m, ::m]
    v = np.einsum("ia,nctuab,jb->ijnctu", bt, tiles, bt, optimize=True)
    v = v.reshape(alpha**2, n, groups, cg, ty, tx)
    v = np.maximum(v, 0) if relu else v
    u = weight.reshape(alpha**2, groups, k // groups, cg)
    product = np.einsum("xgkc,xngctu->xngktu", u, v, optimize=True)
    product = product.reshape(alpha, alpha, n, k, ty, tx)
    out = np.einsum("ai,ijnktu,bj->nktaub", at, product, at, optimize=True)
    out = out.reshape(n, k, ty * m, tx * m)[:, :, :oh, :ow]
    return out if bias is None else out + np.asarray(bias, np.float64)[:, None, None]


def _check_groups(c: int, k: int, cg: int, groups: int) -> None:
    if groups < 1 or c != cg * groups or k % groups:
        raise ShapeError(f"{c} input and {k} output channels do not fit {groups} groups of {cg}")
