"""Cutting maps into overlapping tiles, transforming them, and putting them back.

Inside, channels are innermost ([N, rows, columns, C]), so that gathering tiles copies whole runs
of channels, and both dimensions of a transform are one matrix product with the Kronecker product
of the one-dimensional transform with itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..cook_toom import cook_toom
from ..errors import ShapeError
from .padding import Padding

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


@dataclass(frozen=True)
class Chunk:
    """Images n0:n1, tile rows t0:t1, all columns; whole images or parts of one."""

    n0: int
    n1: int
    t0: int
    t1: int


@dataclass(frozen=True)
class Grid:
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
    def of(cls, x: Tensor, k: int, m: int, r: int, padding: Padding, groups: int) -> Grid:
        """The grid for input ``x`` [N, C, H, W] and K = ``k`` output channels."""
        n, c, h, w = x.shape
        return cls(n, c, h, w, k, m, r, padding, groups, *output_size(h, w, r, padding))

    @property
    def alpha(self) -> int:
        """Tile size in the input."""
        return self.m + self.r - 1

    @property
    def ty(self) -> int:
        """Rows of tiles."""
        return -(-self.oh // self.m)

    @property
    def tx(self) -> int:
        """Tiles per row."""
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
    def whole(self) -> Chunk:
        """All tiles as one chunk."""
        return Chunk(0, self.n, 0, self.ty)

    def chunks(self, x: Tensor) -> Iterator[Chunk]:
        """Chunks that suit the device of ``x``, in order, covering every tile once."""
        budget = _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES_ELSEWHERE)
        per_tile = self.alpha**2 * (self.c + self.k) * x.element_size()
        tiles = max(budget // per_tile, _MIN_CHUNK_TILES)
        images = max(tiles // (self.ty * self.tx), 1)
        rows = self.ty if images > 1 else min(max(tiles // self.tx, 1), self.ty)
        for n0 in range(0, self.n, images):
            for t0 in range(0, self.ty, rows):
                yield Chunk(n0, min(n0 + images, self.n), t0, min(t0 + rows, self.ty))


@lru_cache(maxsize=64)
def transforms(m: int, r: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Kronecker squares of B^T [alpha^2, alpha^2] and A^T [m^2, alpha^2]."""
    bt, _, at = cook_toom(m, r).arrays()
    with torch.inference_mode(False):
        return tuple(
            torch.from_numpy(np.kron(x, x)).to(device=device, dtype=dtype) for x in (bt, at)
        )


def padded_map(x: Tensor, grid: Grid) -> Tensor:
    """[N, C, H, W] -> the map with its padding, channels last, shape ``grid.padded``."""
    out = x.new_zeros(grid.padded)
    out[grid.inside] = x.permute(0, 2, 3, 1)
    return out


def input_chunk(padded: Tensor, grid: Grid, chunk: Chunk, bt: Tensor) -> Tensor:
    """V [alpha^2, groups, tiles, C/groups] of one chunk."""
    m, alpha, g, cg = grid.m, grid.alpha, grid.groups, grid.c // grid.groups
    part = padded[chunk.n0 : chunk.n1, chunk.t0 * m :]
    image, row, column, _ = padded.stride()
    size = (alpha, alpha, g, chunk.n1 - chunk.n0, chunk.t1 - chunk.t0, grid.tx, cg)
    stride = (row, column, cg, image, row * m, column * m, 1)
    tiles = part.as_strided(size, stride).reshape(alpha**2, -1)
    return (bt @ tiles).view(alpha**2, g, -1, cg)


def output_chunk(product: Tensor, grid: Grid, chunk: Chunk, at: Tensor) -> Tensor:
    """Products [alpha^2, groups, tiles, K/groups] -> uncropped outputs [n, rows, columns, K]."""
    m, g, kg = grid.m, grid.groups, grid.k // grid.groups
    n, rows = chunk.n1 - chunk.n0, chunk.t1 - chunk.t0
    y = (at @ product.view(grid.alpha**2, -1)).view(m, m, g, n, rows, grid.tx, kg)
    return y.permute(3, 4, 0, 5, 1, 2, 6).reshape(n, rows * m, grid.tx * m, grid.k)


def product_gradients(grad: Tensor, grid: Grid, chunk: Chunk, at: Tensor) -> Tensor:
    """Output gradients -> those of a chunk's products, [alpha^2 * groups, tiles, K/groups]."""
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


def add_tiles(out: Tensor, tiles: Tensor, grid: Grid, chunk: Chunk) -> None:
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
