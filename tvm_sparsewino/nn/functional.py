"""Winograd convolution in PyTorch, with derivatives of every order.

``Y = A^T [ sum_c U . (B^T d B) ] A``: tiles ``d`` of the padded map are transformed to
``V [alpha^2, tiles, C]``, multiplied by the coefficients ``U [alpha^2, K, C/groups]`` with one
matrix product per coordinate, and transformed back.

Three choices make it fast on a CPU (measured by ``benchmarks/nn_layers.py``):

* Inside, channels are innermost (see :mod:`.tiles`); maps that arrive as NCHW are transposed once
  on the way in and out.
* Each transform is one matrix product for both dimensions and all tiles of a chunk.
* Tiles are processed in chunks that stay in the cache. Only the input map is kept for the
  backward pass, which transforms it again, so that training needs hardly more memory than a
  direct convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import ShapeError
from .padding import Padding
from .tiles import (
    Grid,
    add_tiles,
    input_chunk,
    output_chunk,
    output_size,
    padded_map,
    product_gradients,
    transforms,
)

DTYPES = (torch.float32, torch.float64)


def winograd_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    m: int,
    r: int,
    padding: Padding = (0, 0, 0, 0),
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """Stride-1 convolution F(m x m, r x r) with Winograd-domain coefficients.

    Args:
        x: [N, C, H, W], float32 or float64, on any device. Under autocast it is brought to the
            coefficients' dtype: the transforms are not safe in 16 bits.
        weight: U, [alpha^2, K, C/groups], coordinate i * alpha + j; the dtype of ``x``.
        bias: [K] or None.
        m: outputs per tile and dimension.
        r: filter taps per dimension.
        padding: zeros at (top, left, bottom, right).
        groups: channel groups.
        relu: whether negative transformed inputs count as zero, as in a Winograd-ReLU layer (X.
            Liu et al., arXiv:1802.06367).

    Returns:
        [N, K, OH, OW], in the memory format of ``x``. Differentiable any number of times, once with
        ``relu``.

    Raises:
        ShapeError: shapes or dtypes that do not fit together.
    """
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            return winograd_conv2d(x.to(weight.dtype), weight, bias, m, r, padding, groups, relu)
    check_operands(x, weight, bias, m, r, padding, groups)
    spec = (m, r, tuple(padding), groups)
    return (_ReluForward if relu else _Forward).apply(x, weight, bias, spec)


def transform_input(x: Tensor, m: int, r: int, padding: Padding) -> Tensor:
    """The transformed tiles of a map: ``B^T d B`` for x [N, C, H, W] -> V [alpha^2, tiles, C].

    Tiles run over images, then rows, then columns; the last ones reach into zeros where the map
    is no multiple of ``m``.

    Raises:
        ShapeError: the padded map is smaller than the filter.
    """
    grid = Grid.of(x, x.shape[1], m, r, padding, 1)
    bt = transforms(m, r, x.dtype, x.device)[0]
    return input_chunk(padded_map(x, grid), grid, grid.whole, bt)[:, 0]


def check_operands(
    x: Tensor, weight: Tensor, bias: Tensor | None, m: int, r: int, padding: Padding, groups: int
) -> None:
    """Check what :func:`winograd_conv2d` takes.

    Raises:
        ShapeError: shapes or dtypes that do not fit together.
    """
    alpha = m + r - 1
    if weight.ndim != 3 or weight.shape[0] != alpha**2:
        raise ShapeError(
            f"F({m},{r}) needs [{alpha**2}, K, C] coefficients, got {list(weight.shape)}"
        )
    if x.ndim != 4:
        raise ShapeError(f"the input must be [N, C, H, W], got {list(x.shape)}")
    k, cg = weight.shape[1:]
    if groups < 1 or x.shape[1] != cg * groups or k % groups:
        raise ShapeError(
            f"{x.shape[1]} input and {k} output channels do not fit {groups} groups of {cg}"
        )
    if weight.dtype not in DTYPES or x.dtype != weight.dtype:
        raise ShapeError(
            f"input and coefficients must both be float32 or float64, got {x.dtype} and "
            f"{weight.dtype}"
        )
    if len(padding) != 4 or min(padding) < 0:
        raise ShapeError(f"padding must be 4 sizes (top, left, bottom, right), got {padding}")
    if bias is not None and (bias.shape != (k,) or bias.dtype != weight.dtype):
        raise ShapeError(f"bias must be {weight.dtype} [{k}], got {bias.dtype} {list(bias.shape)}")
    output_size(x.shape[2], x.shape[3], r, padding)


def memory_format(x: Tensor) -> torch.memory_format:
    """The format a convolution gives its output: channels_last if only that fits, else NCHW."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


class _Forward(torch.autograd.Function):
    """y = f(x, U) + bias. Bilinear in x and U, so two functions close under differentiation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, spec: tuple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.spec = spec
        return _convolve(x, weight, bias, *spec)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_x = grad_weight = None
        if need_x or need_weight:
            grad_x, grad_weight = _Backward.apply(grad, x, weight, ctx.spec, (need_x, need_weight))
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if need_bias else None, None


class _Backward(torch.autograd.Function):
    """Gradients (gx, gU) of f for an output gradient gy, themselves differentiable.

    With the trilinear form t(gy, x, U) = <gy, f(x, U)>, gx = dt/dx is bilinear in (gy, U) and
    gU = dt/dU in (gy, x); their derivatives are f and gx, gU again with one argument replaced.
    """

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, spec: tuple, needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(grad, x, weight)
        ctx.spec = spec
        ctx.set_materialize_grads(False)
        return gradients(grad, x, weight, *spec, needs=needs)

    @staticmethod
    def backward(ctx: Any, x2: Tensor | None, weight2: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, x, weight = ctx.saved_tensors
        spec = ctx.spec
        need_grad, need_x, need_weight = ctx.needs_input_grad[:3]
        out_grad = out_x = out_weight = None
        if x2 is not None:
            if need_grad:
                out_grad = _Forward.apply(x2, weight, None, spec)
            if need_weight:
                out_weight = _Backward.apply(grad, x2, weight, spec, (False, True))[1]
        if weight2 is not None:
            if need_grad:
                more = _Forward.apply(x, weight2, None, spec)
                out_grad = more if out_grad is None else out_grad + more
            if need_x:
                out_x = _Backward.apply(grad, x, weight2, spec, (True, False))[0]
        return out_grad, out_x, out_weight, None, None


class _ReluForward(torch.autograd.Function):
    """y = f(x, U) + bias with a ReLU of the transformed inputs. Not bilinear: one derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, spec: tuple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.spec = spec
        return _convolve(x, weight, bias, *spec, relu=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        *needs, need_bias, _ = ctx.needs_input_grad
        grads = gradients(grad, x, weight, *ctx.spec, needs=tuple(needs), relu=True)
        return *grads, grad.sum((0, 2, 3)) if need_bias else None, None


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    m: int,
    r: int,
    padding: Padding,
    groups: int,
    relu: bool = False,
) -> Tensor:
    k = weight.shape[1]
    grid = Grid.of(x, k, m, r, padding, groups)
    bt, at = transforms(m, r, x.dtype, x.device)
    padded = padded_map(x, grid)
    out = x.new_empty((grid.n, k, grid.oh, grid.ow)).contiguous(memory_format=memory_format(x))
    columns = _grouped(weight, groups).transpose(1, 2)
    for chunk in grid.chunks(x):
        v = input_chunk(padded, grid, chunk, bt)
        v = v.relu_() if relu else v
        product = torch.bmm(v.flatten(0, 1), columns)
        y = output_chunk(product, grid, chunk, at)
        if bias is not None:
            y += bias
        top = chunk.t0 * m
        bottom = min(chunk.t1 * m, grid.oh)
        out[chunk.n0 : chunk.n1, :, top:bottom] = y[:, : bottom - top, : grid.ow].permute(
            0, 3, 1, 2
        )
    return out


def gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    m: int,
    r: int,
    padding: Padding,
    groups: int,
    needs: tuple[bool, bool],
    relu: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of :func:`winograd_conv2d` in the input and in U, those that are needed."""
    need_x, need_weight = needs
    grid = Grid.of(x, weight.shape[1], m, r, padding, groups)
    bt, at = transforms(m, r, x.dtype, x.device)
    rows = _grouped(weight, groups)
    padded = padded_map(x, grid) if need_weight or relu else None
    grad_weight = weight.new_zeros(rows.shape) if need_weight else None
    grad_padded = x.new_zeros(grid.padded) if need_x else None
    for chunk in grid.chunks(x):
        d_product = product_gradients(grad, grid, chunk, at)
        v = input_chunk(padded, grid, chunk, bt).flatten(0, 1) if padded is not None else None
        v = v.relu_() if relu else v
        if need_weight:
            grad_weight.baddbmm_(d_product.transpose(1, 2), v)
        if need_x:
            d_v = torch.bmm(d_product, rows)
            d_v = d_v.mul_(v > 0) if relu else d_v
            tiles = bt.t() @ d_v.view(grid.alpha**2, -1)
            add_tiles(grad_padded, tiles, grid, chunk)
    grad_x = None
    if need_x:
        inside = grad_padded[grid.inside].permute(0, 3, 1, 2)
        grad_x = inside.contiguous(memory_format=memory_format(x))
    return grad_x, grad_weight.view(weight.shape) if need_weight else None


def _grouped(weight: Tensor, groups: int) -> Tensor:
    """[alpha^2, K, C/groups] -> [alpha^2 * groups, K/groups, C/groups]."""
    coordinates, k, cg = weight.shape
    return weight.reshape(coordinates * groups, k // groups, cg)
