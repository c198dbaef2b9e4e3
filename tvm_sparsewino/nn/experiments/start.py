"""The network that fine-tuning starts from: made once, kept, and the same on every process."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...files import replacing
from ..training import kept_generators
from .methods import starting_point
from .phases import Setting

START = "start.pt"


def kept_start(setting: Setting, dense: nn.Module, path: Path, resume: bool) -> nn.Module:
    """The starting point in ``path``, or a new one, which is then kept there.

    Raises:
        ConfigError, PruneError: as :func:`.methods.starting_point`.
    """
    state = None
    if setting.ranks.first:
        if resume and path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            state = make_start(setting, dense)
            with replacing(path) as beside:
                torch.save(state, beside)
    return loaded_start(setting, dense, setting.ranks.from_first(state))


def make_start(setting: Setting, dense: nn.Module) -> dict[str, Any]:
    """What is kept: ``model``, a state dict, and the ``seconds`` and ``cpu_seconds`` it took.

    Raises:
        ConfigError, PruneError: as :func:`.methods.starting_point`.
    """
    e = setting.experiment
    begin, cpu_begin = time.monotonic(), time.process_time()
    images = setting.samples(e.prune.images)
    with kept_generators(dense):
        torch.manual_seed(e.seed)
        model = starting_point(_trainable(dense), e.prune, images[0][:1], images)
    spent = {"seconds": time.monotonic() - begin, "cpu_seconds": time.process_time() - cpu_begin}
    return {"model": model.state_dict(), **spent}


def loaded_start(setting: Setting, dense: nn.Module, state: dict[str, Any]) -> nn.Module:
    """The network of what :func:`make_start` gave."""
    image = setting.image()
    model = starting_point(_trainable(dense), setting.experiment.prune, image, None)
    model.load_state_dict(state["model"])
    return model


def _trainable(dense: nn.Module) -> nn.Module:
    return copy.deepcopy(dense).requires_grad_(True)
