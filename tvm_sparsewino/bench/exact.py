"""Float64 convolutions by matrix products, for layers that the oracle is too slow for.

The same definitions as :mod:`tvm_sparsewino.reference`, which the tests compare these with.
"""

from __future__ import annotations

import numpy as np

from ..cook_toom import CookToom


def direct_conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3x3 convolution, stride 1, padding 1: x [N, C, H, W] -> float64 [N, K, H, W]."""
    n, c, h, w = x.shape
    xp = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty((n, len(weight), h, w))
    for image, result in zip(xp, out, strict=True):
        total = np.zeros((len(weight), h * w))
        for i in range(3):
            for j in range(3):
                taps = weight[:, :, i, j].astype(np.float64)
                total += taps @ image[:, i : i + h, j : j + w].reshape(c, h * w)
        result[:] = (total + bias[:, None]).reshape(len(weight), h, w)
    return out


def winograd_conv(
    x: np.ndarray, u: np.ndarray, bias: np.ndarray, algorithm: CookToom
) -> np.ndarray:
    """The same with coefficients U [alpha^2, K, C] of F(m, 3); one image at a time."""
    return np.stack([_winograd_image(image, u, bias, algorithm) for image in x])


def _winograd_image(
    image: np.ndarray, u: np.ndarray, bias: np.ndarray, algorithm: CookToom
) -> np.ndarray:
    m, alpha = algorithm.m, algorithm.alpha
    c, h, w = image.shape
    k = u.shape[1]
    ty, tx = -(-h // m), -(-w // m)
    pads = ((0, 0), (1, 1 + ty * m - h), (1, 1 + tx * m - w))
    padded = np.pad(image.astype(np.float64), pads)
    bt, _, at = algorithm.arrays()
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (alpha, alpha), axis=(1, 2))
    v = np.tensordot(tiles[:, ::m, ::m], bt, axes=(3, 1))  # [C, ty, tx, column, row]
    v = np.tensordot(v, bt, axes=(3, 1))  # [C, ty, tx, row, column]
    v = np.ascontiguousarray(v.transpose(3, 4, 0, 1, 2)).reshape(alpha**2, c, ty * tx)
    product = np.empty((alpha**2, k, ty * tx))
    for coefficients, inputs, result in zip(u, v, product, strict=True):
        np.matmul(coefficients.astype(np.float64), inputs, out=result)
    product = product.reshape(alpha, alpha, k, ty, tx)
    out = np.tensordot(at, product, axes=(1, 0))  # [m, alpha, K, ty, tx]
    out = np.tensordot(at, out, axes=(1, 1))  # [column, row, K, ty, tx]
    out = out.transpose(2, 3, 1, 4, 0).reshape(k, ty * m, tx * m)[:, :h, :w]
    return out + bias[:, None, None]
