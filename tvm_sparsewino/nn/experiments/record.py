"""The record of a finished experiment."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ... import host
from ..calibration import winograd_layers
from ..distributed import fingerprint
from ..layers import WinogradConv2d
from ..training import LOG, read_log
from .cost import measure_cost
from .methods import UNPRUNED
from .phases import Setting
from .settings import Experiment
from .start import START

# Where it runs and how often it is saved change nothing that a record says. Which images were in
# the folder does: a record has them beside its identity.
_NOT_IDENTITY = ("device", "data_folder", "save_every", "cost")


def identity(experiment: Experiment, dense: bool = False) -> str:
    """Eight hexadecimal digits that two experiments share if they are the same.

    Only what differs from the default experiment counts, so that a setting that is added later
    changes nothing for the experiments before it.

    Args:
        experiment: any.
        dense: look at what dense training depends on only.
    """
    data = _differences(asdict(experiment), asdict(Experiment()))
    for name in (*_NOT_IDENTITY, *(("prune", "tune") if dense else ())):
        data.pop(name, None)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]


def _differences(data: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in data.items():
        other = default.get(name)
        # The default tables of free options are empty, so what is in them counts as a whole.
        if isinstance(value, dict) and isinstance(other, dict) and other:
            inner = _differences(value, other)
            if inner:
                found[name] = inner
        elif value != other:
            found[name] = value
    return found


def make_record(
    setting: Setting, folder: Path, dense_dir: Path, dense: nn.Module, final: nn.Module
) -> dict[str, Any]:
    """Accuracy, zeros, time, curves, cost of a training step, machine; every process takes part.

    Args:
        setting: of the experiment.
        folder, dense_dir: of the run and of its dense network, with their logs.
        dense, final: trained, in evaluation mode; one network for method "dense".
    """
    e = setting.experiment
    figures, dense_figures = setting.evaluate(final), setting.evaluate(dense)
    if not setting.ranks.first:
        return {}
    pruned = e.prune.method not in UNPRUNED
    tuned = e.prune.method != "dense"
    record = {
        "id": identity(e),
        "experiment": {**asdict(e), "data_folder": None},
        "images": setting.images,
        **figures,
        "zeros": _zeros(final) if pruned else {},
        "parameters": {"dense": _nonzeros(dense), "pruned": _nonzeros(final)},
        "dense": {**dense_figures, **_spent(dense_dir)},
        "start": _start_spent(folder / START) if pruned else {},
        "tune": _spent(folder) if tuned and setting.steps(e.tune) else {},
        "cost": measure_cost(setting, dense, final) if pruned and e.cost else None,
        "curves": {"dense": _curve(dense_dir), "tune": _curve(folder) if tuned else []},
        "fingerprint": fingerprint(final),
        "machine": _machine(setting),
    }
    return json.loads(json.dumps(record))  # what is returned is what is kept


def _zeros(model: nn.Module) -> dict[str, float]:
    """Share of exact zeros by Winograd layer, and of all of them together."""
    layers = winograd_layers(model)
    zeros = {name: int((x.winograd_weight == 0).sum()) for name, x in layers.items()}
    sizes = {name: x.weight.numel() for name, x in layers.items()}
    shares = {name: zeros[name] / sizes[name] for name in layers}
    return {**shares, "all": sum(zeros.values()) / sum(sizes.values())}


def _nonzeros(model: nn.Module) -> int:
    """Parameters that are not zero; of Winograd layers the coefficients that are used."""
    winograd = {x.weight: x for x in model.modules() if isinstance(x, WinogradConv2d)}
    used = (winograd[p].winograd_weight if p in winograd else p for p in model.parameters())
    return sum(int((values != 0).sum()) for values in used)


def _curve(folder: Path) -> list[dict[str, Any]]:
    return read_log(folder / LOG) if (folder / LOG).exists() else []


def _spent(folder: Path) -> dict[str, Any]:
    """Steps and seconds of a phase: its own, without evaluation."""
    last = _curve(folder)[-1]
    return {name: last[name] for name in ("step", "seconds", "cpu_seconds")}


def _start_spent(path: Path) -> dict[str, float]:
    """Seconds until fine-tuning started: measuring scales, or pruning at once."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: round(state[name], 2) for name in ("seconds", "cpu_seconds")}


def _machine(setting: Setting) -> dict[str, Any]:
    cuda = setting.device.type == "cuda"
    return {
        "device": setting.device.type,
        "name": torch.cuda.get_device_name(setting.device) if cuda else host.processor(),
        "threads": torch.get_num_threads(),
        "processes": setting.ranks.count,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
