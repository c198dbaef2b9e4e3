"""One experiment: dense training, pruning with fine-tuning, and a record of what came out."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import ConfigError, WeightsError, in_context
from ...files import replacing
from ..data import load_data
from ..data.batches import check_batch
from ..distributed import find_device, joined
from ..models.state import read_state
from .curves import draw_curves
from .methods import (
    UNPRUNED,
    check_optimizer,
    check_schedule,
    pruner_of,
    starting_point,
)
from .networks import make_network
from .phases import DENSE, TUNE, Setting, train
from .precision import MIXED
from .record import identity, make_record
from .settings import Experiment
from .start import START, kept_start

RECORD = "record.json"
WEIGHTS = "weights.pt"
_CONFIG = "config.json"


def run_experiment(
    experiment: Experiment,
    out_dir: str | Path,
    dense_dir: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Do what ``experiment`` says; returns its record, which is ``record.json`` in the folder too.

    The folder also gets the configuration, per phase a checkpoint and ``log.jsonl``, the weights
    (``weights.pt``, a state dict) and ``curves.png``. A run that was stopped goes on from its last
    checkpoint, and ends as if it had not been stopped.

    Args:
        experiment: what to do.
        out_dir: made if it is missing.
        dense_dir: of the dense network, which several runs may share; None is ``out_dir/dense``.
        resume: go on with what the folder holds; False starts anew, but for the dense network.
        progress: show progress.

    Raises:
        ConfigError: options that do not fit, or a folder of another run.
        MissingExtra: the data or matplotlib is not installed.
        WeightsError: data or a checkpoint that cannot be read.
        PruneError: nothing to prune.
    """
    out_dir = Path(out_dir)
    dense_dir = out_dir / "dense" if dense_dir is None else Path(dense_dir)
    device = find_device(experiment.device)
    if experiment.precision in MIXED and device.type != "cuda":
        raise ConfigError(f"precision {experiment.precision!r} takes a GPU, got {device}")
    with joined(device) as ranks, _deterministic(device):
        data = load_data(experiment.data, experiment.data_folder, experiment.image_size)
        setting = Setting(experiment, data, ranks, device, progress)
        _check(setting)
        _same(setting, out_dir, identity(experiment))
        dense = dense_network(setting, dense_dir)
        if experiment.prune.method == "dense":
            return _finished(setting, out_dir, dense_dir, dense, None)
        model = _tuned(setting, dense, out_dir, resume)
        return _finished(setting, out_dir, dense_dir, dense, model)


def load_network(experiment: Experiment, path: str | Path) -> nn.Module:
    """A trained network of ``experiment`` from its ``weights.pt``, in evaluation mode.

    Raises:
        ConfigError, MissingExtra: as :func:`run_experiment`.
        WeightsError: that too, and a file that is missing, damaged or of another network.
    """
    with in_context(str(path)):
        state = read_state(Path(path))
    data, _ = load_data(experiment.data, experiment.data_folder, experiment.image_size)
    model = make_network(experiment.network, experiment.network_options, data)
    if experiment.prune.method not in UNPRUNED:
        image = torch.zeros(1, data.channels, data.size, data.size)
        # Filters that are gone are as many whichever they were; the weights come from the file.
        model = starting_point(model, experiment.prune, image, None)
    with in_context(str(path)):
        _load(model, state)
    return model.eval()


def _load(model: nn.Module, state: Any) -> None:
    """Give ``model`` what a file held.

    Raises:
        WeightsError: it is of another network, or no state dict.
    """
    tensors = isinstance(state, dict) and all(isinstance(x, torch.Tensor) for x in state.values())
    if not tensors or not all(isinstance(name, str) for name in state):
        raise WeightsError("expected a dict of tensors by name")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"not the weights of this network: {error}") from error


def dense_network(setting: Setting, folder: Path) -> nn.Module:
    """The dense network after its training, from its folder where that is finished.

    Raises:
        ConfigError: the folder is of another network.
    """
    e = setting.experiment
    _same(setting, folder, identity(e, dense=True))
    model = _fresh(setting).to(setting.device, setting.dtype)
    return train(setting, model, e.dense, DENSE, folder, True, f"dense, seed {e.seed}")


def _fresh(setting: Setting) -> nn.Module:
    """The network before its training, on the CPU; drawn from the seed alone."""
    e = setting.experiment
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(e.seed)
        return make_network(e.network, e.network_options, setting.data[0])


def _check(setting: Setting) -> None:
    """Find what fine-tuning would refuse before hours of dense training, and before files.

    Raises:
        ConfigError, PruneError: options that do not fit the network, its data or each other.
    """
    e, source = setting.experiment, setting.data[0]
    check_batch(e.batch, len(source.labels), setting.ranks.count)
    check_optimizer(e.prune, e.tune.optimizer)
    model = _fresh(setting)
    if e.prune.method not in UNPRUNED:
        image = torch.zeros(1, source.channels, source.size, source.size)
        with torch.random.fork_rng(devices=()):
            starting_point(model, e.prune, image, None)
        check_schedule(e.prune, setting.steps(e.tune))


def _tuned(setting: Setting, dense: nn.Module, folder: Path, resume: bool) -> nn.Module:
    """The pruned network, or the dense one trained on."""
    e = setting.experiment
    teacher = _single(copy.deepcopy(dense)).eval().requires_grad_(False)
    title = f"{e.prune.method} {e.prune.sparsity:.0%}, seed {e.seed}"
    pruner = None
    if e.prune.method == "continued":
        model = copy.deepcopy(teacher).requires_grad_(True)
    else:
        model = kept_start(setting, teacher, folder / START, resume)
        pruner = pruner_of(model, e.prune, setting.steps(e.tune))
    if setting.steps(e.tune) == 0:
        return model
    args = (model, e.tune, TUNE, folder, resume, title)
    return train(setting, *args, pruner=pruner, teacher=teacher)


def _single(model: nn.Module) -> nn.Module:
    """With ordinary batch normalisation, which other processes need not take part in."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.__class__ = nn.BatchNorm2d
    return model


def _finished(
    setting: Setting, folder: Path, dense_dir: Path, dense: nn.Module, model: nn.Module | None
) -> dict[str, Any]:
    """Write down what came out; returns the record, on the first process."""
    dense = _single(dense).eval()
    final = dense if model is None else _single(model).eval()
    if setting.ranks.first:  # before the measurements, which may fail
        with replacing(folder / WEIGHTS) as beside:
            torch.save(final.state_dict(), beside)
    record = make_record(setting, folder, dense_dir, dense, final)
    if not setting.ranks.first:
        return {}
    draw_curves(record, folder / "curves.png")
    with replacing(folder / RECORD) as beside:
        beside.write_text(json.dumps(record, indent=1) + "\n")
    return record


def _same(setting: Setting, folder: Path, own: str) -> None:
    """Keep what a folder is of, or compare with what is there.

    Raises:
        ConfigError: the folder is of another run or of other images, or cannot be told.
    """
    path = folder / _CONFIG
    if path.exists():
        there = _kept(path)
        if there["id"] != own:
            raise ConfigError(f"{folder} holds another run ({there['id']}, not {own}), see {path}")
        # Folders older than this entry do not tell.
        images = there.get("images", setting.images)
        if images != setting.images:
            raise ConfigError(
                f"{folder} holds a run on other images ({images}, not {setting.images})"
            )
    elif setting.ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        config = {"id": own, "images": setting.images, **asdict(setting.experiment)}
        with replacing(path) as beside:
            beside.write_text(json.dumps(config, indent=1) + "\n")


def _kept(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
        return {**config, "id": config["id"]}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ConfigError(f"{path} does not say which run the folder is of: {error!r}") from error


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Only kernels whose sums have one order; what was set before is set again."""
    if device.type != "cuda":
        yield
        return
    # Read when cuBLAS is first used; without it its sums may have another order each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
