"""Adam in whitened coordinates: ordinary learning rates for Winograd-domain coefficients.

The coefficients of one output channel cancel one another in ``A^T (U V) A``: the loss is steep in
some combinations of them and flat in most, which no scale per coefficient can mend. With H the
output-space Hessian (:mod:`tvm_sparsewino.nn.least_squares`) restricted to what is left of a
channel and ``H = L L^T``, the coordinates ``q = L^T u`` are white: unit steps in any direction
change the layer's output by the same amount. H is, up to a factor, the Gauss-Newton block of the
channel, so Adam in q is close to a natural-gradient method with Adam's step lengths.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PruneError
from .calibration import run_on, watching, winograd_layers
from .layers import WinogradConv2d
from .least_squares import LeastSquares
from .modes import evaluation


class WhitenedLayer:
    """Maps between the surviving coefficients of a layer and their whitened coordinates.

    Built once from the layer's mask and the problem's Hessian; memory is the sum over output
    channels of (coefficients left)^2 floats, so it suits layers that are pruned already.

    Args:
        problem: statistics of the layer's own input (targets are not used).

    Raises:
        PruneError: the layer has no mask, or the problem has seen no data.
    """

    def __init__(self, problem: LeastSquares) -> None:
        layer = problem.layer
        if layer.mask is None:
            raise PruneError("whitening needs a pruned layer: prune it first")
        self.layer = layer
        self.rows: list[tuple[int, int, Tensor]] = []
        index, start = [], 0
        _, k, cg = layer.weight.shape
        mask = layer.mask.permute(1, 0, 2).reshape(k, -1)
        u = layer.winograd_weight.detach().permute(1, 0, 2).reshape(k, -1)
        for g in range(layer.groups):
            normalised = problem.normalised(g)
            for row in range(g * k // layer.groups, (g + 1) * k // layer.groups):
                support = mask[row].nonzero()[:, 0]
                if len(support) == 0:
                    continue
                size = normalised.size[support]
                block = normalised.hessian[support[:, None], support].double()
                lower = torch.linalg.cholesky(block).to(u)
                level = (lower.t() @ (u[row, support] * size)).square().mean().sqrt()
                # Rows without any power keep unit steps.
                level = torch.where(level > 0, level, torch.ones_like(level))
                inverse = torch.linalg.solve_triangular(
                    lower, torch.diag(level / size), upper=False
                )
                index.append((support // cg) * (k * cg) + row * cg + support % cg)
                self.rows.append((start, start + len(support), inverse))
                start += len(support)
        self.index = torch.cat(index) if index else torch.zeros(0, dtype=torch.long)
        self.scale = layer.scale.expand(layer.weight.shape).reshape(-1)[self.index]

    @torch.no_grad()
    def gradient(self) -> Tensor:
        """The loss's gradient in the whitened coordinates, from ``layer.weight.grad``."""
        by_u = self.layer.weight.grad.reshape(-1)[self.index] * self.scale
        out = torch.empty_like(by_u)
        for start, stop, inverse in self.rows:
            torch.mv(inverse, by_u[start:stop], out=out[start:stop])
        return out

    @torch.no_grad()
    def move(self, step: Tensor) -> None:
        """Add a step given in whitened coordinates to the layer's parameter."""
        by_u = torch.empty_like(step)
        for start, stop, inverse in self.rows:
            torch.mv(inverse.t(), step[start:stop], out=by_u[start:stop])
        flat = self.layer.weight.view(-1)
        flat[self.index] = flat[self.index] + by_u * self.scale


def whitened_layers(model: nn.Module, batches: Iterable[Any]) -> list[WhitenedLayer]:
    """Whiten every Winograd layer of a pruned network, for :class:`WhitenedAdam`.

    Args:
        model: pruned, at the start of its training; it runs in evaluation mode and is not changed.
        batches: inputs, or tuples of positional arguments, that the layers' inputs are measured on.

    Returns:
        one whitened layer per Winograd layer, in the order of the model.

    Raises:
        PruneError: no Winograd layer, or one that is not pruned or that no batch reaches.
    """
    problems = {layer: LeastSquares(layer) for layer in winograd_layers(model).values()}
    whitened = []

    def see(layer: WinogradConv2d, x: Tensor, output: Tensor) -> None:
        problems[layer].add(x, output)

    # One layer at a time: a Hessian is much larger than what is kept of it.
    for layer in list(problems):
        with torch.no_grad(), evaluation(model), watching([layer], see):
            for batch in batches:
                run_on(model, batch)
        whitened.append(WhitenedLayer(problems.pop(layer)))
    return whitened


class WhitenedAdam(torch.optim.Optimizer):
    """Adam (D. Kingma, J. Ba, arXiv:1412.6980) on whitened coordinates of Winograd layers.

    Coordinates are in units of their row's rms, so that a step of ``lr`` changes every layer's
    output by about that share. Pruned coefficients do not change.

    Args:
        layers: what :func:`whitened_layers` returned.
        others: all other parameters (biases, ordinary layers), updated by plain Adam; parameters of
            ``layers`` among them are skipped, so ``model.parameters()`` will do.
        lr: learning rate of whitened coordinates.
        lr_others: learning rate of the other parameters.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled weight decay (I. Loshchilov, F. Hutter, arXiv:1711.05101), in units
            of the learning rate; parameters of one dimension (biases, norms) are exempt.

    Raises:
        PruneError: no whitened layers.
    """

    def __init__(
        self,
        layers: Iterable[WhitenedLayer],
        others: Iterable[nn.Parameter] = (),
        lr: float = 1e-3,
        lr_others: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-12,
        weight_decay: float = 0.0,
    ) -> None:
        self._whitened = {x.layer.weight: x for x in layers}
        if not self._whitened:
            raise PruneError("no whitened layers to optimise")
        taken = set(self._whitened)
        groups = [{"params": list(self._whitened), "lr": lr}]
        rest = [p for p in others if p not in taken]
        if rest:
            groups.append({"params": rest, "lr": lr_others})
        super().__init__(groups, {"betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Take one step; parameters without a gradient stay. A ``closure`` is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if group["weight_decay"] and parameter.ndim > 1:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                layer = self._whitened.get(parameter)
                grad = parameter.grad if layer is None else layer.gradient()
                change = self._direction(parameter, grad, group) * -group["lr"]
                if layer is None:
                    parameter.add_(change)
                else:
                    layer.move(change)

    def _direction(self, parameter: nn.Parameter, grad: Tensor, group: dict) -> Tensor:
        state, (b1, b2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["first"] = torch.zeros_like(grad)
            state["second"] = torch.zeros_like(grad)
        state["step"] += 1
        count = int(state["step"])
        first = state["first"].mul_(b1).add_(grad, alpha=1 - b1)
        second = state["second"].mul_(b2).addcmul_(grad, grad, value=1 - b2)
        return (first / (1 - b1**count)) / ((second / (1 - b2**count)).sqrt() + group["eps"])
