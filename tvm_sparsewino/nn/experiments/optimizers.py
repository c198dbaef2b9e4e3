"""The optimiser of a phase of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..layers import WinogradConv2d
from ..precondition import WhitenedAdam, whitened_layers
from .settings import WHITENED, Phase

# Decay of the second moment of plain Adam: PyTorch's.
_SECOND = 0.999
# Of the whitened one, which makes few steps.
_SECOND_WHITENED = 0.99


def make_optimizer(
    model: nn.Module, phase: Phase, samples: Callable[[], Sequence[Tensor]]
) -> torch.optim.Optimizer:
    """The phase's optimiser; weight decay spares what has one value per channel.

    Args:
        model: as it is before the first step.
        phase: its settings.
        samples: gives inputs that the optimiser "whitened" looks at.

    Raises:
        PruneError: "whitened" and a Winograd layer that is not pruned, or none.
    """
    winograd = {x.weight for x in model.modules() if isinstance(x, WinogradConv2d)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    if phase.optimizer == WHITENED:
        return WhitenedAdam(
            whitened_layers(model, samples()),
            parameters,
            phase.lr * phase.winograd_lr,
            phase.lr,
            betas=(phase.momentum, _SECOND_WHITENED),
            weight_decay=phase.weight_decay,
        )
    groups = [
        {"params": [p for p in parameters if p in winograd], "lr": phase.lr * phase.winograd_lr},
        {"params": [p for p in parameters if p not in winograd and p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if phase.optimizer == "adam":
        betas = (phase.momentum, _SECOND)
        return torch.optim.AdamW(groups, phase.lr, betas, weight_decay=phase.weight_decay)
    return torch.optim.SGD(
        groups,
        phase.lr,
        phase.momentum,
        weight_decay=phase.weight_decay,
        nesterov=phase.momentum > 0,
    )
