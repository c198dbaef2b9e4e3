"""What ``winograd_conv2d`` computes, in TE: plain and slow, the same in Relax and Relay."""

from __future__ import annotations

from typing import Any

from tvm import te

from .._compat import tir
from ..config import ConvShape
from ..cook_toom import CookToom


def winograd_stages(
    data: te.Tensor,
    weight: te.Tensor,
    bias: te.Tensor | None = None,
    *,
    bt: te.Tensor,
    at: te.Tensor,
    shape: ConvShape,
    algorithm: CookToom,
    relu: bool,
) -> te.Tensor:
    """Input transform, perhaps ReLU, product, output transform, bias.

    Args:
        data: [N, C, H, W].
        weight: [alpha^2, K, C/groups].
        bias: [K].
        bt, at: the matrices of the algorithm.
        shape: of the convolution.
        algorithm: F(m, r).
        relu: whether negative transformed inputs count as zero.
    """
    m, alpha = algorithm.m, algorithm.alpha
    tiles = (-(-shape.oh // m), -(-shape.ow // m))
    padded = _padded(data, shape, (tiles[0] * m + alpha - m, tiles[1] * m + alpha - m))
    a, b = te.reduce_axis((0, alpha), "a"), te.reduce_axis((0, alpha), "b")
    transformed = te.compute(
        (alpha, alpha, shape.n, shape.c, *tiles),
        lambda i, j, n, c, y, x: te.sum(
            bt[i, a] * bt[j, b] * padded[n, c, y * m + a, x * m + b], axis=[a, b]
        ),
        name="input_transform",
    )
    if relu:
        signed, zero = transformed, tir.const(0.0, "float32")
        transformed = te.compute(
            signed.shape, lambda *at: tir.max(signed[at], zero), name="winograd_relu"
        )
    per_group, out_per_group = shape.c // shape.groups, shape.k // shape.groups
    channel = te.reduce_axis((0, per_group), "channel")
    product = te.compute(
        (alpha, alpha, shape.n, shape.k, *tiles),
        lambda i, j, n, k, y, x: te.sum(
            weight[i * alpha + j, k, channel]
            * transformed[i, j, n, k // out_per_group * per_group + channel, y, x],
            axis=[channel],
        ),
        name="product",
    )
    i, j = te.reduce_axis((0, alpha), "i"), te.reduce_axis((0, alpha), "j")
    output = te.compute(
        (shape.n, shape.k, shape.oh, shape.ow),
        lambda n, k, y, x: te.sum(
            at[y % m, i] * at[x % m, j] * product[i, j, n, k, y // m, x // m], axis=[i, j]
        ),
        name="output_transform",
    )
    if bias is None:
        return output
    return te.compute(
        output.shape, lambda n, k, y, x: output[n, k, y, x] + bias[k], name="add_bias"
    )


def _padded(data: te.Tensor, shape: ConvShape, size: tuple[int, int]) -> te.Tensor:
    """``data`` with zeros around it, rows and columns of every tile included."""
    top, left = shape.padding[:2]

    def value(n: Any, c: Any, y: Any, x: Any) -> Any:
        inside = tir.all(y >= top, y < top + shape.h, x >= left, x < left + shape.w)
        return tir.if_then_else(inside, data[n, c, y - top, x - left], tir.const(0.0, "float32"))

    return te.compute((shape.n, shape.c, *size), value, name="pad")
