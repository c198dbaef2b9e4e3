"""One layer's pruning as a sparse least-squares problem in the output.

For output channel k the unknowns are all coefficients u of (coordinate, input channel), and the
error is taken where it counts, behind the output transform:

    ``E |A^T (U V) A - Y|^2 = u^T H u - 2 r^T u + const``,
    ``H[(xi, c), (xi', c')] = E[V_xi,c V_xi',c'] (a^T a)_xi,xi'``,

with ``a`` the m^2 x alpha^2 output transform, those of its rows whose outputs exist. H is the same
for every output channel. It couples the coordinates, whose errors cancel one another; compensating
each coordinate alone makes pruning worse.

:mod:`tvm_sparsewino.nn.sparse_solution` solves the problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..errors import PruneError, ShapeError
from .calibration import transformed_input
from .layers import WinogradConv2d
from .sparse_solution import Normalised

# Share of the mean diagonal below which an input counts as dead.
_DEAD = 1e-4
# Pull towards the old coefficients, in units of the normalised Hessian's diagonal.
PRIOR = 1e-3
# Numbers of the transformed input that are in memory at a time.
_CHUNK = 1 << 24


@dataclass
class LeastSquares:
    """Sums over tiles that make up the problem of one layer.

    Attributes:
        layer: the layer.
        hessian: H, float32 or float64 [groups, n, n], n = alpha^2 * C/groups, index (xi, c).
        target: r, [groups, n, K/groups].
        input_sum: sum over outputs of the transformed inputs that make them, [alpha^2, C].
        output_sum: sum of the wanted outputs, [K].
        outputs: outputs per channel seen so far.
        tiles: tiles seen so far.
    """

    layer: WinogradConv2d
    hessian: Tensor = field(init=False)
    target: Tensor = field(init=False)
    input_sum: Tensor = field(init=False)
    output_sum: Tensor = field(init=False)
    outputs: int = 0
    tiles: int = 0

    def __post_init__(self) -> None:
        coordinates, k, cg = self.layer.weight.shape
        groups, n = self.layer.groups, coordinates * cg
        self.hessian = self.layer.weight.new_zeros((groups, n, n))
        self.target = self.layer.weight.new_zeros((groups, n, k // groups))
        self.input_sum = self.layer.weight.new_zeros((coordinates, cg * groups))
        self.output_sum = self.layer.weight.new_zeros(k)

    @torch.no_grad()
    def add(self, x: Tensor, wanted: Tensor) -> None:
        """Take in an input [N, C, H, W] and the output wanted for it [N, K, OH, OW], bias excluded.

        Tiles that reach beyond the output count with the outputs they have.

        Raises:
            ShapeError: the input and the output do not belong together.
        """
        oh, ow = wanted.shape[2:]
        m, coordinates = self.layer.m, self.layer.algorithm.coordinates
        per_image = coordinates * -(-oh // m) * -(-ow // m) * x.shape[1]
        images = max(1, _CHUNK // per_image)
        for part, outputs in zip(x.split(images), wanted.split(images), strict=True):
            v = transformed_input(self.layer, part)
            rows, columns = -(-oh // m), -(-ow // m)
            if v.shape[1] != len(part) * rows * columns:
                raise ShapeError(f"an output {oh}x{ow} does not belong to inputs {x.shape[2:]}")
            v = v.view(coordinates, len(part), rows, columns, -1)
            for at_rows, height in _spans(oh, m):
                for at_columns, width in _spans(ow, m):
                    y = _tiles_of(outputs, at_rows, height, at_columns, width, m)
                    self._add_tiles(v[:, :, at_rows, at_columns].flatten(1, 3), y, height, width)

    def mean_error(self, u: Tensor) -> Tensor:
        """What the outputs of coefficients u [alpha^2, K, C/groups] lack on average, [K]."""
        coordinates, k, cg = u.shape
        v = self.input_sum.view(coordinates, self.layer.groups, 1, cg)
        have = (u.view(coordinates, self.layer.groups, -1, cg) * v).sum((0, 3)).view(k)
        return (self.output_sum - have) / self.outputs

    def _add_tiles(self, v: Tensor, y: Tensor, height: int, width: int) -> None:
        """V [alpha^2, tiles, C] and the outputs [height * width, K, tiles] that belong to it."""
        at = _output_transform(self.layer, height, width)
        coordinates, cg = self.layer.weight.shape[0], self.layer.weight.shape[2]
        kg = self.target.shape[2]
        coupling = (at.t() @ at).view(coordinates, 1, coordinates, 1)
        pulled = (at.t() @ y.flatten(1)).view(coordinates, *y.shape[1:])
        for g in range(self.layer.groups):
            part = v[:, :, g * cg : (g + 1) * cg].transpose(1, 2).contiguous()
            flat = part.flatten(0, 1)
            products = (flat @ flat.t()).view(coordinates, cg, coordinates, cg)
            self.hessian[g].view(products.shape).addcmul_(products, coupling)
            wanted = pulled[:, g * kg : (g + 1) * kg].transpose(1, 2)
            self.target[g] += torch.bmm(part, wanted).view(-1, kg)
        self.input_sum += at.sum(0)[:, None] * v.sum(1)
        self.output_sum += y.sum((0, 2))
        self.outputs += height * width * y.shape[2]
        self.tiles += y.shape[2]

    def normalised(self, group: int) -> Normalised:
        """The problem of one group in units in which every unknown has the same effect.

        Raises:
            PruneError: nothing was added, or the input was always zero.
        """
        if self.tiles == 0:
            raise PruneError("no calibration data has reached the layer")
        h = self.hessian[group] / self.tiles
        power = h.diagonal()
        if not bool(power.mean() > 0):
            raise PruneError("its input is zero on all calibration data")
        size = (power + _DEAD * power.mean()).sqrt()
        h.div_(size[:, None]).div_(size)
        h.diagonal().add_(PRIOR)
        old = _rows_of(self.layer.winograd_weight.detach(), group, self.layer.groups)
        target = self.target[group] / self.tiles / size[:, None] + PRIOR * old * size[:, None]
        return Normalised(h, target, size, old * size[:, None])


def needed_bytes(layer: WinogradConv2d) -> int:
    """Memory that pruning a layer takes at least: H of all groups, one normalised, its inverse."""
    coordinates, _, cg = layer.weight.shape
    return (layer.groups + 2) * (coordinates * cg) ** 2 * layer.weight.element_size()


def coefficients_of(rows: list[Tensor], layer: WinogradConv2d) -> Tensor:
    """[n, K/groups] of every group -> [alpha^2, K, C/groups]."""
    coordinates, _, cg = layer.weight.shape
    parts = [x.view(coordinates, cg, -1).transpose(1, 2) for x in rows]
    return torch.cat(parts, 1).contiguous()


def _rows_of(u: Tensor, group: int, groups: int) -> Tensor:
    kg = u.shape[1] // groups
    part = u[:, group * kg : (group + 1) * kg]
    return part.transpose(1, 2).reshape(-1, kg)


def _spans(outputs: int, m: int) -> Iterator[tuple[slice, int]]:
    """Ranges of tiles in one dimension with how many of their m outputs exist."""
    whole, rest = divmod(outputs, m)
    if whole:
        yield slice(0, whole), m
    if rest:
        yield slice(whole, whole + 1), rest


def _tiles_of(
    outputs: Tensor, rows: slice, height: int, columns: slice, width: int, m: int
) -> Tensor:
    """Outputs [N, K, OH, OW] of some tiles -> [height * width, K, tiles]."""
    count_rows, count_columns = rows.stop - rows.start, columns.stop - columns.start
    top, left = rows.start * m, columns.start * m
    part = outputs[:, :, top : top + count_rows * height, left : left + count_columns * width]
    part = part.reshape(*outputs.shape[:2], count_rows, height, count_columns, width)
    return part.permute(3, 5, 1, 0, 2, 4).reshape(height * width, outputs.shape[1], -1)


def _output_transform(layer: WinogradConv2d, height: int, width: int) -> Tensor:
    """(height * width) x alpha^2: the output transform of the outputs of a tile that exist."""
    at = layer.algorithm.arrays()[2]
    return torch.from_numpy(np.kron(at[:height], at[:width])).to(layer.weight)
