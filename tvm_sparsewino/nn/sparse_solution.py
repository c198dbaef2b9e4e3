"""Which unknowns of a least-squares problem stay, and the best values for those that do.

Which stay is found by the alternating direction method of multipliers (ADMM): S. Boyd et al. 2011,
section 9.1; for pruning V. Boza, "Fast and Effective Weight Update for Pruned Large Language
Models", arXiv:2401.02938. One inverse serves all iterations and columns. What stays is then solved
for, column by column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Scores and a share of zeros -> which stay.
Keep = Callable[[Tensor, float], Tensor]

# ADMM: weight of the constraint, and the part of the iterations during which sparsity rises.
_RHO = 0.1
_RAMP = 0.6
_RAMP_START = 0.3


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

    def choose(
        self,
        sparsity: float,
        iterations: int,
        gain: Tensor | None = None,
        keep: Keep = keep_largest,
    ) -> Tensor:
        """Which unknowns stay: bool [n, K], found by ADMM over all columns together.

        Args:
            sparsity: share of unknowns that go, in [0, 1).
            iterations: of ADMM; 40 are usually within a few percent of 100.
            gain: importance of each column's error, [K]; columns that matter more keep more.
            keep: what stays given scores [n, K] and a share of zeros: the structure of zeros.
        """
        ramp = [min(1.0, (i + 1) / (_RAMP * iterations)) for i in range(iterations)]
        shares = [sparsity * (_RAMP_START + (1 - _RAMP_START) * done) for done in ramp]
        *_, (_, mask) = self._admm(shares, gain, keep)
        return mask

    def search(
        self, shares: Sequence[float], iterations: int, gain: Tensor, keep: Keep
    ) -> Iterator[Tensor]:
        """Approximate solutions [n, K] at rising shares of zeros, one after the other."""
        repeated = [share for share in shares for _ in range(iterations)]
        for i, (kept, _) in enumerate(self._admm(repeated, gain, keep)):
            if (i + 1) % iterations == 0:
                yield kept / gain.to(kept).clamp_min(1e-30)

    def refined(self, w: Tensor, steps: int) -> Tensor:
        """Values nearer to the minimum on the support of ``w`` [n, K]: conjugate gradients.

        For all columns together and in few steps, where :meth:`solve` would be too expensive.
        """
        mask = w != 0
        residual = (self.target - self.hessian @ w) * mask
        direction, power = residual, residual.square().sum(0)
        for _ in range(steps):
            ahead = (self.hessian @ direction) * mask
            length = power / (direction * ahead).sum(0).clamp_min(1e-30)
            w, residual = w + length * direction, residual - length * ahead
            before, power = power, residual.square().sum(0)
            direction = residual + power / before.clamp_min(1e-30) * direction
        return w

    def _admm(
        self, shares: Iterable[float], gain: Tensor | None, keep: Keep
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """After each iteration the constrained variable, columns times their gain, and its mask."""
        weight = torch.ones_like(self.target[0]) if gain is None else gain.to(self.target)
        # In place, columns one after the other as LAPACK has them: no further matrix is made, of
        # which one of a large layer takes gigabytes.
        inverse = self.hessian.clone().mT
        inverse.diagonal().add_(_RHO)
        torch.linalg.cholesky(inverse, out=inverse)
        torch.cholesky_inverse(inverse, out=inverse)
        target, kept = self.target * weight, self.old * weight
        dual = torch.zeros_like(kept)
        for share in shares:
            free = inverse @ (target + _RHO * (kept - dual)) + dual
            mask = keep(free.abs(), share)
            kept = free * mask
            dual = free - kept
            yield kept, mask

    def solve(self, mask: Tensor) -> Tensor:
        """The minimiser on a support: coefficients u [n, K], zero where ``mask`` is False."""
        w = torch.zeros_like(self.target)
        for k in range(mask.shape[1]):
            support = mask[:, k].nonzero()[:, 0]
            if len(support):
                block = self.hessian[support[:, None], support]
                w[support, k] = _minimiser(block, self.target[support, k, None])[:, 0]
        return w / self.size[:, None]


def _minimiser(block: Tensor, target: Tensor) -> Tensor:
    """``block^-1 target`` in the precision given, refined twice; in float64 where that fails."""
    factor, failed = torch.linalg.cholesky_ex(block)
    if int(failed):
        factor = torch.linalg.cholesky(block.double())
        return torch.cholesky_solve(target.double(), factor).to(target)
    w = torch.cholesky_solve(target, factor)
    for _ in range(2):
        w += torch.cholesky_solve(target - block @ w, factor)
    return w
