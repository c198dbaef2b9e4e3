"""Winograd convolution in PyTorch, with derivatives of every order.

``Y = A^T [ sum_c U . (B^T d B) ] A``: tiles ``d`` of the padded map are transformed to
``V [alpha^2, tiles, C]``, multiplied by the coefficients ``U [alpha^2, K, C/groups]`` with one
matrix product per coordinate, and transformed back.

Three choices make it fast on a CPU (measured by ``benchmarks/nn_layers.py``):

* Inside, channels are innermost, so that gathering overlapping tiles copies whole runs of
  channels. Maps that arrive as NCHW are transposed once on the way in and out.
* Both dimensions of a transform are one matrix product with the Kronecker product of the
  one-dimensional transform with itself.
* Tiles are processed in chunks that stay in the cache. Only the input map is kept for the
  backward pass, which transforms it again, so that training needs hardly more memory than a
  direct convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cook_toom import cook_toom
from ..errors import ShapeError

Padding = tuple[int, int, int, int]

DTYPES = (torch.float32, torch.float64)

# A chunk holds the transformed input and product of this many bytes on a CPU, but no fewer
# tiles than keep the matrix products efficient. 2 to 8 MiB measure the same, 64 MiB is slower.
_CHUNK_BYTES = {"cpu": 4 << 20}
_CHUNK_BYTES_ELSEWHERE = 256 << 20
_MIN_CHUNK_TILES = 128


def output_size(h: int, w: int, r: int, padding: Padding) -> tuple[int, int]:
    """Height and width of the output of a stride-1 convolution.

    Raises:
        ShapeError: the padded map is smaller than the filter.
    """
    top, left, bottom, right = padding
    oh, ow = h + top + bottom - r + 1, w + left + right - r + 1
    if oh < 1 or ow < 1:
        raise ShapeError(f"a map {h}x{w} with padding {tuple(padding)} is smaller than {r}x{r}")
    return oh, ow


def winograd_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    m: int,
    r: int,
    padding: Padding = (0, 0, 0, 0),
    groups: int = 1,
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

    Returns:
        [N, K, OH, OW], in the memory format of ``x``. Differentiable any number of times.

    Raises:
        ShapeError: shapes or dtypes that do not fit together.
    """
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            return winograd_conv2d(x.to(weight.dtype), weight, bias, m, r, padding, groups)
    check_operands(x, weight, bias, m, r, padding, groups)
    return _Forward.apply(x, weight, bias, (m, r, tuple(padding), groups))


def transform_input(x: Tensor, m: int, r: int, padding: Padding) -> Tensor:
    """The transformed tiles of a map: ``B^T d B`` for x [N, C, H, W] -> V [alpha^2, tiles, C].

    Tiles run over images, then rows, then columns; the last ones reach into zeros where the map
    is no multiple of ``m``.

    Raises:
        ShapeError: the padded map is smaller than the filter.
    """
    grid = _Grid.of(x, x.shape[1], m, r, padding, 1)
    bt = _transforms(m, r, x.dtype, x.device)[0]
    return _input_chunk(_padded(x, grid), grid, grid.whole, bt)[:, 0]


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
            grad_x, grad_weight = _Backward.apply(
                grad, x, weight, ctx.spec, (need_x, need_weight)
            )
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


@dataclass(frozen=True)
class _Chunk:
    """Images n0:n1, tile rows t0:t1, all columns; whole images or parts of one."""

    n0: int
    n1: int
    t0: int
    t1: int


@dataclass(frozen=True)
class _Grid:
    """The tiles of one convolution: sizes only."""

    n: int
    c: int
    h: int
    w: int
    k: int
    m: int
    r: int
    padding: Padding
    groups: int
    oh: int
    ow: int

    @classmethod
    def of(cls, x: Tensor, k: int, m: int, r: int, padding: Padding, groups: int) -> _Grid:
        n, c, h, w = x.shape
        return cls(n, c, h, w, k, m, r, padding, groups, *output_size(h, w, r, padding))

    @property
    def alpha(self) -> int:
        return self.m + self.r - 1

    @property
    def ty(self) -> int:
        return -(-self.oh // self.m)

    @property
    def tx(self) -> int:
        return -(-self.ow // self.m)

    @property
    def padded(self) -> tuple[int, int, int, int]:
        """Shape of the padded map, channels last, covering all tiles exactly."""
        edge = self.r - 1
        return self.n, self.ty * self.m + edge, self.tx * self.m + edge, self.c

    @property
    def inside(self) -> tuple[slice, slice, slice]:
        """Where the map lies in the padded one."""
        top, left = self.padding[:2]
        return slice(None), slice(top, top + self.h), slice(left, left + self.w)

    @property
    def whole(self) -> _Chunk:
        return _Chunk(0, self.n, 0, self.ty)

    def chunks(self, x: Tensor) -> Iterator[_Chunk]:
        budget = _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES_ELSEWHERE)
        per_tile = self.alpha**2 * (self.c + self.k) * x.element_size()
        tiles = max(budget // per_tile, _MIN_CHUNK_TILES)
        images = max(tiles // (self.ty * self.tx), 1)
        rows = self.ty if images > 1 else min(max(tiles // self.tx, 1), self.ty)
        for n0 in range(0, self.n, images):
            for t0 in range(0, self.ty, rows):
                yield _Chunk(n0, min(n0 + images, self.n), t0, min(t0 + rows, self.ty))


@lru_cache(maxsize=64)
def _transforms(
    m: int, r: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Kronecker squares of B^T [alpha^2, alpha^2] and A^T [m^2, alpha^2]."""
    bt, _, at = cook_toom(m, r).arrays()
    with torch.inference_mode(False):
        return tuple(
            torch.from_numpy(np.kron(x, x)).to(device=device, dtype=dtype) for x in (bt, at)
        )


def _padded(x: Tensor, grid: _Grid) -> Tensor:
    out = x.new_zeros(grid.padded)
    out[grid.inside] = x.permute(0, 2, 3, 1)
    return out


def _input_chunk(padded: Tensor, grid: _Grid, chunk: _Chunk, bt: Tensor) -> Tensor:
    """V [alpha^2, groups, tiles, C/groups] of one chunk."""
    m, alpha, g, cg = grid.m, grid.alpha, grid.groups, grid.c // grid.groups
    part = padded[chunk.n0 : chunk.n1, chunk.t0 * m :]
    image, row, column, _ = padded.stride()
    size = (alpha, alpha, g, chunk.n1 - chunk.n0, chunk.t1 - chunk.t0, grid.tx, cg)
    stride = (row, column, cg, image, row * m, column * m, 1)
    tiles = part.as_strided(size, stride).reshape(alpha**2, -1)
    return (bt @ tiles).view(alpha**2, g, -1, cg)


def _output_chunk(product: Tensor, grid: _Grid, chunk: _Chunk, at: Tensor) -> Tensor:
    """Products [alpha^2, groups, tiles, K/groups] -> uncropped outputs [n, rows, columns, K]."""
    m, g, kg = grid.m, grid.groups, grid.k // grid.groups
    n, rows = chunk.n1 - chunk.n0, chunk.t1 - chunk.t0
    y = (at @ product.view(grid.alpha**2, -1)).view(m, m, g, n, rows, grid.tx, kg)
    return y.permute(3, 4, 0, 5, 1, 2, 6).reshape(n, rows * m, grid.tx * m, grid.k)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, m: int, r: int, padding: Padding, groups: int
) -> Tensor:
    k = weight.shape[1]
    grid = _Grid.of(x, k, m, r, padding, groups)
    bt, at = _transforms(m, r, x.dtype, x.device)
    padded = _padded(x, grid)
    out = x.new_empty((grid.n, k, grid.oh, grid.ow)).contiguous(memory_format=memory_format(x))
    columns = _grouped(weight, groups).transpose(1, 2)
    for chunk in grid.chunks(x):
        v = _input_chunk(padded, grid, chunk, bt)
        product = torch.bmm(v.flatten(0, 1), columns)
        y = _output_chunk(product, grid, chunk, at)
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
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of :func:`winograd_conv2d` in the input and in U, those that are needed."""
    need_x, need_weight = needs
    grid = _Grid.of(x, weight.shape[1], m, r, padding, groups)
    bt, at = _transforms(m, r, x.dtype, x.device)
    rows = _grouped(weight, groups)
    padded = _padded(x, grid) if need_weight else None
    grad_weight = torch.zeros_like(rows) if need_weight else None
    grad_padded = x.new_zeros(grid.padded) if need_x else None
    for chunk in grid.chunks(x):
        d_product = _grad_chunk(grad, grid, chunk, at)
        if need_weight:
            v = _input_chunk(padded, grid, chunk, bt).flatten(0, 1)
            grad_weight.baddbmm_(d_product.transpose(1, 2), v)
        if need_x:
            d_v = torch.bmm(d_product, rows)
            tiles = bt.t() @ d_v.view(grid.alpha**2, -1)
            _add_tiles(grad_padded, tiles, grid, chunk)
    grad_x = None
    if need_x:
        inside = grad_padded[grid.inside].permute(0, 3, 1, 2)
        grad_x = inside.contiguous(memory_format=memory_format(x))
    return grad_x, grad_weight.view(weight.shape) if need_weight else None


def _grouped(weight: Tensor, groups: int) -> Tensor:
    """[alpha^2, K, C/groups] -> [alpha^2 * groups, K/groups, C/groups]."""
    coordinates, k, cg = weight.shape
    return weight.reshape(coordinates * groups, k // groups, cg)


def _grad_chunk(grad: Tensor, grid: _Grid, chunk: _Chunk, at: Tensor) -> Tensor:
    """Output gradients of a chunk -> gradients of its products [alpha^2 * groups, tiles, K/groups]."""
    m, g, kg = grid.m, grid.groups, grid.k // grid.groups
    n, rows = chunk.n1 - chunk.n0, chunk.t1 - chunk.t0
    part = grad[chunk.n0 : chunk.n1, :, chunk.t0 * m : chunk.t1 * m].permute(0, 2, 3, 1)
    full = (n, rows * m, grid.tx * m, grid.k)
    if part.shape != full:
        whole = grad.new_zeros(full)
        whole[:, : part.shape[1], : part.shape[2]] = part
        part = whole
    part = part.reshape(n, rows, m, grid.tx, m, g, kg).permute(2, 4, 5, 0, 1, 3, 6)
    return (at.t() @ part.reshape(m * m, -1)).view(grid.alpha**2 * g, -1, kg)


def _add_tiles(out: Tensor, tiles: Tensor, grid: _Grid, chunk: _Chunk) -> None:
    """Add overlapping tiles [alpha^2, groups * tiles * C/groups] into the padded map.

    Pieces of at most m rows and columns of all tiles do not overlap one another, so that one
    strided addition serves all tiles.
    """
    m, alpha, g, cg = grid.m, grid.alpha, grid.groups, grid.c // grid.groups
    n, rows = chunk.n1 - chunk.n0, chunk.t1 - chunk.t0
    tiles = tiles.view(alpha, alpha, g, n, rows, grid.tx, cg).permute(3, 4, 0, 5, 1, 2, 6)
    image, row, column, _ = out.stride()
    stride = (image, row * m, row, column * m, column, cg, 1)
    for i in range(0, alpha, m):
        for j in range(0, alpha, m):
            piece = tiles[:, :, i : i + m, :, j : j + m]
            part = out[chunk.n0 : chunk.n1, chunk.t0 * m + i :, j:]
            part.as_strided(piece.shape, stride).add_(piece)
