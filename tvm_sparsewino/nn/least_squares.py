"""One layer's pruning as a sparse least-squares problem in the output, and its solution.

For output channel k the unknowns are all coefficients u of (coordinate, input channel), and the
error is taken where it counts, behind the output transform:

    ``E |A^T (U V) A - Y|^2 = u^T H u - 2 r^T u + const``,
    ``H[(xi, c), (xi', c')] = E[V_xi,c V_xi',c'] (a^T a)_xi,xi'``,

with ``a`` the m^2 x alpha^2 output transform. H is the same for every output channel. It couples
the coordinates, whose errors cancel one another; compensating each coordinate alone makes
pruning worse.

Which coefficients stay is found by the alternating direction method of multipliers (ADMM): S.
Boyd et al. 2011, section 9.1; for pruning V. Boza, "Fast and Effective Weight Update for Pruned
Large Language Models", arXiv:2401.02938. One inverse serves all iterations and channels.
What stays is then solved for exactly, channel by channel, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..errors import PruneError, ShapeError
from .calibration import transformed_input
from .layers import WinogradConv2d

# Share of the mean diagonal below which an input counts as dead.
_DEAD = 1e-4
# Pull towards the old coefficients, in units of the normalised Hessian's diagonal.
PRIOR = 1e-3
# ADMM: weight of the constraint, and the part of the iterations during which sparsity rises.
_RHO = 0.1
_RAMP = 0.6
_RAMP_START = 0.3


@dataclass
class LeastSquares:
    """Sums over tiles that make up the problem of one layer.

    Attributes:
        layer: the layer.
        hessian: H, float32 or float64 [groups, n, n], n = alpha^2 * C/groups, index (xi, c).
        target: r, [groups, n, K/groups].
        input_sum: sum of V over tiles, [alpha^2, C].
        output_sum: sum of the wanted outputs over tiles, per position, [m^2, K].
        tiles: tiles seen so far.
    """

    layer: WinogradConv2d
    hessian: Tensor = field(init=False)
    target: Tensor = field(init=False)
    input_sum: Tensor = field(init=False)
    output_sum: Tensor = field(init=False)
    tiles: int = 0

    def __post_init__(self) -> None:
        coordinates, k, cg = self.layer.weight.shape
        groups, n = self.layer.groups, coordinates * cg
        self.hessian = self.layer.weight.new_zeros((groups, n, n))
        self.target = self.layer.weight.new_zeros((groups, n, k // groups))
        self.input_sum = self.layer.weight.new_zeros((coordinates, cg * groups))
        self.output_sum = self.layer.weight.new_zeros((self.layer.m**2, k))

    @torch.no_grad()
    def add(self, x: Tensor, wanted: Tensor) -> None:
        """Take in an input [N, C, H, W] and the output wanted for it [N, K, OH, OW], bias excluded.

        Only tiles that lie wholly inside the output count.

        Raises:
            ShapeError: no whole tile.
        """
        m = self.layer.m
        oh, ow = wanted.shape[2:]
        rows, columns = oh // m, ow // m
        if rows == 0 or columns == 0:
            raise ShapeError(f"an output {oh}x{ow} holds no whole {m}x{m} tile")
        at = _output_transform(self.layer)
        for image, output in zip(x, wanted, strict=True):
            v = transformed_input(self.layer, image[None])
            v = v.view(v.shape[0], -(-oh // m), -(-ow // m), v.shape[2])[:, :rows, :columns]
            y = output[:, : rows * m, : columns * m].reshape(-1, rows, m, columns, m)
            y = y.permute(2, 4, 0, 1, 3).reshape(m * m, -1)
            pulled = (at.t() @ y).view(at.shape[1], output.shape[0], -1)
            self._add_tiles(v.flatten(1, 2), pulled)
            self.input_sum += v.sum((1, 2))
            self.output_sum += y.view(m * m, output.shape[0], -1).sum(2)
            self.tiles += rows * columns

    def mean_error(self, u: Tensor) -> Tensor:
        """What the outputs of coefficients u [alpha^2, K, C/groups] lack on average, [K]."""
        coordinates, k, cg = u.shape
        groups = self.layer.groups
        v = self.input_sum.view(coordinates, groups, 1, cg)
        product = (u.view(coordinates, groups, k // groups, cg) * v).sum(3).view(coordinates, k)
        missing = self.output_sum - _output_transform(self.layer) @ product
        return missing.mean(0) / self.tiles

    def _add_tiles(self, v: Tensor, pulled: Tensor) -> None:
        """V [alpha^2, tiles, C] and the outputs pulled back through A [alpha^2, K, tiles]."""
        cg, kg = self.layer.weight.shape[2], self.target.shape[2]
        for g in range(self.layer.groups):
            part = v[:, :, g * cg : (g + 1) * cg].transpose(1, 2).contiguous()
            flat = part.flatten(0, 1)
            # Plain V V^T here; the coupling by the output transform is a factor, applied once.
            self.hessian[g].addmm_(flat, flat.t())
            wanted = pulled[:, g * kg : (g + 1) * kg].transpose(1, 2)
            self.target[g] += torch.bmm(part, wanted).view(-1, kg)

    def normalised(self, group: int) -> Normalised:
        """The problem of one group in units in which every unknown has the same effect.

        Raises:
            PruneError: nothing was added, or the input was always zero.
        """
        if self.tiles == 0:
            raise PruneError("no calibration data has reached the layer")
        at = _output_transform(self.layer)
        coordinates, cg = self.layer.weight.shape[0], self.layer.weight.shape[2]
        h = (self.hessian[group] / self.tiles).view(coordinates, cg, coordinates, cg)
        h = (h * (at.t() @ at).view(coordinates, 1, coordinates, 1)).view(coordinates * cg, -1)
        power = h.diagonal()
        if not bool(power.mean() > 0):
            raise PruneError("its input is zero on all calibration data")
        size = (power + _DEAD * power.mean()).sqrt()
        h = h / size[:, None] / size
        h.diagonal().add_(PRIOR)
        old = _rows_of(self.layer.winograd_weight.detach(), group, self.layer.groups)
        target = self.target[group] / self.tiles / size[:, None] + PRIOR * old * size[:, None]
        return Normalised(h, target, size, old * size[:, None])


@dataclass(frozen=True)
class Normalised:
    """``min w^T H w / 2 - r^T w`` per column; unknowns are u * size, so H has a unit diagonal.

    Attributes:
        hessian: [n, n].
        target: [n, K].
        size: effect of each unknown on the output, [n].
        old: the coefficients before pruning in these units, [n, K].
    """

    hessian: Tensor
    target: Tensor
    size: Tensor
    old: Tensor

    def choose(self, sparsity: float, iterations: int, gain: Tensor | None = None) -> Tensor:
        """Which unknowns stay: bool [n, K], found by ADMM over all columns together.

        Args:
            sparsity: share of unknowns that go, in [0, 1).
            iterations: of ADMM; 40 are usually within a few percent of 100.
            gain: importance of each column's error, [K]; columns that matter more keep more.
        """
        weight = torch.ones_like(self.target[0]) if gain is None else gain.to(self.target)
        damped = self.hessian.clone()
        damped.diagonal().add_(_RHO)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        target, kept = self.target * weight, self.old * weight
        dual = torch.zeros_like(kept)
        for i in range(iterations):
            free = inverse @ (target + _RHO * (kept - dual)) + dual
            done = min(1.0, (i + 1) / (_RAMP * iterations))
            mask = keep_largest(free.abs(), sparsity * (_RAMP_START + (1 - _RAMP_START) * done))
            kept = free * mask
            dual = free - kept
        return mask

    def solve(self, mask: Tensor) -> Tensor:
        """The exact minimiser on a support: coefficients u [n, K], zero where ``mask`` is False."""
        w = torch.zeros_like(self.target)
        for k in range(mask.shape[1]):
            support = mask[:, k].nonzero()[:, 0]
            if len(support):
                block = self.hessian[support[:, None], support].double()
                factor = torch.linalg.cholesky(block)
                column = self.target[support, k, None].double()
                w[support, k] = torch.cholesky_solve(column, factor)[:, 0].to(w)
        return w / self.size[:, None]


def keep_largest(scores: Tensor, sparsity: float) -> Tensor:
    """Bool like ``scores``: True for all but the share ``sparsity`` with the smallest scores.

    The number of zeros is exact, also among equal scores.
    """
    flat = scores.flatten()
    going = round(sparsity * flat.numel())
    mask = torch.ones_like(flat, dtype=torch.bool)
    if going:
        mask[torch.topk(flat, going, largest=False, sorted=False).indices] = False
    return mask.view(scores.shape)


def coefficients_of(rows: list[Tensor], layer: WinogradConv2d) -> Tensor:
    """[n, K/groups] of every group -> [alpha^2, K, C/groups]."""
    coordinates, _, cg = layer.weight.shape
    parts = [x.view(coordinates, cg, -1).transpose(1, 2) for x in rows]
    return torch.cat(parts, 1).contiguous()


def _rows_of(u: Tensor, group: int, groups: int) -> Tensor:
    kg = u.shape[1] // groups
    part = u[:, group * kg : (group + 1) * kg]
    return part.transpose(1, 2).reshape(-1, kg)


def _output_transform(layer: WinogradConv2d) -> Tensor:
    """m^2 x alpha^2: both dimensions of the output transform as one matrix."""
    at = layer.algorithm.arrays()[2]
    return torch.from_numpy(np.kron(at, at)).to(layer.weight)
