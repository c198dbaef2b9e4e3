"""Gradual pruning in the Winograd domain while a network trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import PruneConfig
from ..errors import PruneError
from .calibration import is_calibrated, winograd_layers
from .layers import WinogradConv2d
from .masks import choose_masks
from .parametrise import parametrise


class NativePruner:
    """Prunes a network's Winograd layers gradually, on a cubic schedule, while it trains.

    Call :meth:`step` after every ``optimizer.step()``. From ``start_step`` to ``end_step`` the
    share of zeros rises from ``initial_sparsity`` to ``sparsity``, fast at first (M. Zhu,
    S. Gupta, arXiv:1710.01878); after that the masks stay.

    Criteria; the coefficients with the smallest scores are pruned:

    * "activation": ``|U| rms(V) |A row|``, which is ``|Q|`` once
      :func:`~tvm_sparsewino.nn.calibration.calibrate` has set the layers' scales.
    * "white": ``|U|`` times the coordinate's importance under white input.
    * "authors": after Li, Park and Tang (arXiv:1702.08597) and their released training code,
      ``|U|`` against the threshold ``base / (|A row| (|g| + 1 / max_threshold_factor))``, g being
      the gradient of the loss with respect to U at the last step: coefficients that the loss pulls
      at are harder to prune. With ``max_threshold_factor=0`` the threshold is ``base / |A row|``.
      The schedule's sparsity sets the base. While sparsity rises there is no mask: small
      coefficients are zeroed after each step, keep receiving gradients, and may grow back. At the
      end the zeros are frozen and the rest is fine-tuned. Their recipe has ``parameters="plain"``,
      an L1 term and ``every=1``.

    With ``l1``, add :meth:`penalty` to the loss.

    Budgets: "layer" gives every layer the scheduled sparsity; "global" compares scores over all
    layers, each in units of its layer's rms score.

    Structures, patterns of zeros that kernels run faster on:

    * "balanced": every row (coordinate, output channel) keeps equally many coefficients, at least
      one; the sparsity is rounded to whole numbers per row. Budget "layer" only.
    * "rows2", "rows4": 2 or 4 adjacent output channels of a group share their zeros; the last ones
      of a group may be fewer.
    * "kernel": a pair of output and input channel is pruned for all coordinates at once, like a
      kernel in coarse pruning (Anwar and Sung, arXiv:1610.09639).
    * "outputs", "inputs": whole feature maps, the other level of coarse pruning: all coefficients
      of an output or of an input channel. A pruned output channel gives its bias.

    Coefficients that share their zeros are ranked by the mean square of their scores.

    With ``regrow``, a masked coefficient keeps its value and may come back at an update, if others
    have become smaller; without, pruned coefficients stay pruned.

    Args:
        model: a network with Winograd layers.
        config: the schedule, criterion, budget and structure.

    Raises:
        PruneError: no Winograd layer, or criterion "activation" for a layer without a measured
            scale; from :meth:`step`, if gradients that the criterion needs are missing.
    """

    def __init__(self, model: nn.Module, config: PruneConfig) -> None:
        self.config = config
        self.layers = winograd_layers(model)
        self.steps = 0
        parametrise(model, config.parameters)
        if config.criterion == "activation":
            missing = sorted(n for n, x in self.layers.items() if not is_calibrated(x))
            if missing:
                raise PruneError(
                    f"criterion 'activation' needs measured scales, layers {missing} have none: "
                    "calibrate(model, batches) first"
                )

    @property
    def target(self) -> float:
        """The sparsity that the schedule asks for now; 0 before ``start_step``."""
        c = self.config
        if self.steps < c.start_step:
            return 0.0
        if self.steps >= c.end_step:
            return float(c.sparsity)
        left = 1 - (self.steps - c.start_step) / (c.end_step - c.start_step)
        return c.sparsity + (c.initial_sparsity - c.sparsity) * left**3

    @property
    def sparsity(self) -> float:
        """Share of coefficients that are exactly zero now, over all layers."""
        counts = [(x.winograd_weight == 0).double() for x in self.layers.values()]
        return float(sum(c.sum() for c in counts) / sum(c.numel() for c in counts))

    def penalty(self) -> Tensor | float:
        """The term to add to the loss: ``l1 * sum |U|`` until ``end_step``, then 0."""
        if self.config.l1 == 0 or self.steps >= self.config.end_step:
            return 0.0
        return self.config.l1 * l1_penalty(self.layers.values())

    @torch.no_grad()
    def step(self) -> float:
        """Count an optimiser step, prune if the schedule says so; returns the target sparsity."""
        self.steps += 1
        c, target = self.config, self.target
        due = (self.steps - c.start_step) % c.every == 0 or self.steps == c.end_step
        if target > 0 and self.steps <= c.end_step and due:
            self._prune(target)
        elif c.criterion == "authors" and target > 0:
            self._zero_masked()
        return target

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs; masks and weights are in the model's own."""
        return {"steps": self.steps, "config": self.config.to_json()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            PruneError: the state is of another configuration, or none.
        """
        steps, config = state.get("steps"), state.get("config")
        if not isinstance(steps, int) or steps < 0 or config is None:
            raise PruneError("this is no state of a NativePruner")
        if PruneConfig.from_json(config) != self.config:
            raise PruneError(f"expected the state of {self.config}, got one of {config}")
        self.steps = steps

    def _prune(self, target: float) -> None:
        scores = {name: self._score(name, layer) for name, layer in self.layers.items()}
        groups = {name: layer.groups for name, layer in self.layers.items()}
        masks = choose_masks(scores, groups, target, self.config.structure, self.config.budget)
        frozen = self.steps >= self.config.end_step
        for name, layer in self.layers.items():
            if not self.config.regrow and layer.mask is not None:
                masks[name] &= layer.mask
            if self.config.criterion == "authors":
                layer.weight.masked_fill_(~masks[name], 0.0)
                layer.set_mask(masks[name] if frozen else None)
            else:
                layer.set_mask(masks[name])

    def _score(self, name: str, layer: WinogradConv2d) -> Tensor:
        # Masked coefficients count with the values they would come back with.
        u = (layer.weight / layer.scale).abs()
        if self.config.criterion == "activation":
            score = layer.weight.abs()
        elif self.config.criterion == "white":
            score = u * _per_coordinate(layer.algorithm.importance(), u)
        else:
            score = u * _per_coordinate(layer.algorithm.output_gain(), u)
            if self.config.max_threshold_factor:
                gradient = _gradient_of_u(name, layer)
                score *= gradient.abs() + 1 / self.config.max_threshold_factor
        if not self.config.regrow and layer.mask is not None:
            score = torch.where(layer.mask, score, -1.0)
        return score

    def _zero_masked(self) -> None:
        for layer in self.layers.values():
            if layer.mask is not None:
                layer.weight.masked_fill_(~layer.mask, 0.0)


def l1_penalty(layers: Iterable[WinogradConv2d]) -> Tensor:
    """``sum |U|`` over Winograd layers: the L1 term of Li, Park and Tang, to be weighted."""
    return sum(x.winograd_weight.abs().sum() for x in layers)


def _gradient_of_u(name: str, layer: WinogradConv2d) -> Tensor:
    if layer.weight.grad is None:
        raise PruneError(f"layer {name!r} has no gradient: step() goes before zero_grad()")
    # A step that a loss scaler skipped leaves infinity: nothing is known of that gradient.
    return torch.nan_to_num(layer.weight.grad, nan=0.0, posinf=0.0, neginf=0.0) * layer.scale


def _per_coordinate(values: Any, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like)[:, None, None]
