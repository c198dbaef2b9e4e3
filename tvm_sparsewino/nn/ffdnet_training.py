"""FFDNet, pruned in the Winograd domain: from the published weights to a weights file.

Two stages, both on patches of scikit-image's photos only:

1. One-shot pruning of the inner convolutions, layer by layer, with exact compensation
   (:func:`~tvm_sparsewino.nn.second_order.prune_network`).
2. Fine-tuning of everything with fixed masks: distillation from the dense network, Adam in
   whitened coordinates (:class:`~tvm_sparsewino.nn.precondition.WhitenedAdam`).

Either stage goes on where it was stopped.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..files import replacing
from .convert import convert
from .models import FFDNet, load_ffdnet
from .patches import NoisyPatches, load_photos
from .precondition import WhitenedAdam, whitened_layers
from .second_order import prune_network
from .training import TrainConfig, Trainer, distillation
from .weights_io import load_into, save_model

CONFIG = "config.json"
PRUNED = "pruned.safetensors"
RESULT = "ffdnet_winograd.safetensors"

_CALIBRATION_SEED, _WHITENING_SEED, _TRAINING_SEED, _HELD_OUT_SEED = 1, 5, 21, 999
_HELD_OUT_BATCHES = 4
# An error counts in relation to the dense network's own, plus this: at low noise that is tiny.
_FLOOR = 1e-4
# The mean of about the last 100 steps; worth an eighth of the error in the middle of a run.
_AVERAGE = 0.99


@dataclass(frozen=True)
class FFDNetTraining:
    """What to prune and how long to train.

    Attributes:
        sparsity: share of zeros in every inner convolution, in [0, 1).
        tile: m.
        calibration_patches: for the one-shot stage.
        iterations: of the search for the masks.
        whitening_patches: for the preconditioner.
        steps: of fine-tuning; 0 ends after the one-shot stage.
        lr, lr_others: of the Winograd coefficients (whitened), and of everything else.
        batch: patches per step.
        patch: height and width of a patch; a multiple of 2 * tile.
        log_every, save_every: steps.
    """

    sparsity: float = 0.8
    tile: int = 4
    calibration_patches: int = 64
    iterations: int = 100
    whitening_patches: int = 24
    steps: int = 2500
    lr: float = 1e-3
    lr_others: float = 1e-4
    batch: int = 4
    patch: int = 96
    log_every: int = 100
    save_every: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"sparsity must be in [0, 1), got {self.sparsity!r}")
        if self.patch % (2 * self.tile):
            raise ConfigError(f"patch must be a multiple of {2 * self.tile}, got {self.patch!r}")
        counts = (self.calibration_patches, self.whitening_patches, self.batch, self.iterations)
        if min(counts) < 1 or self.steps < 0:
            raise ConfigError(f"counts must be at least 1, got {self}")


def train_ffdnet(
    config: FFDNetTraining,
    out_dir: str | Path,
    resume: bool = True,
    evaluate: Callable[[nn.Module], dict[str, Any]] | None = None,
    photos: dict[str, Tensor] | None = None,
    progress: bool = True,
) -> Path:
    """Prune and train FFDNet; returns the weights file, ``ffdnet_winograd.safetensors``.

    The folder also gets the configuration, the one-shot result, a checkpoint and ``log.jsonl``.
    A pruned network put there as ``pruned.safetensors`` beforehand is trained further instead of
    pruning anew.

    Args:
        config: what to do.
        out_dir: made if it is missing.
        resume: go on with what the folder holds; False starts anew.
        evaluate: model -> figures for the log, beside the loss on held-out patches.
        photos: training photos; None takes scikit-image's.
        progress: show progress.

    Raises:
        MissingExtra: the pretrained weights' package or scikit-image is missing.
        ConfigError: the folder holds a run with another configuration.
        WeightsError: the folder holds a checkpoint of another run.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    dense = load_ffdnet()
    photos = load_photos() if photos is None else photos
    if not resume:
        (out_dir / PRUNED).unlink(missing_ok=True)
        (out_dir / CONFIG).unlink(missing_ok=True)
    _same_run(config, out_dir / CONFIG)
    model = _pruned(dense, config, photos, out_dir / PRUNED, progress)
    if config.steps:
        _fine_tuned(model, dense, config, photos, out_dir, resume, evaluate, progress)
    with replacing(out_dir / RESULT) as beside:
        save_model(model, beside)
    return out_dir / RESULT


def _same_run(config: FFDNetTraining, path: Path) -> None:
    """Keep the configuration beside the results, or compare it with the one that is there."""
    text = json.dumps(asdict(config), indent=1) + "\n"
    if not path.exists():
        with replacing(path) as beside:
            beside.write_text(text)
    elif path.read_text() != text:
        raise ConfigError(f"{path.parent} holds a run with another configuration, see {path}")


def _pruned(
    dense: FFDNet, config: FFDNetTraining, photos: Any, path: Path, progress: bool
) -> nn.Module:
    """Stage 1, or its result from ``path``."""
    if path.exists():
        return load_into(FFDNet(), path).eval()
    model = _inner_converted(dense, config.tile)
    patches = NoisyPatches(photos, config.patch, seed=_CALIBRATION_SEED)
    batches = _inputs(patches, config.calibration_patches, config.batch)

    def say(name: str, lost: float) -> None:
        if progress:
            print(f"pruned {name}: {100 * lost:.2f} % of its output's power lost", flush=True)

    prune_network(model, batches, config.sparsity, config.iterations, say)
    save_model(model, path)
    # From the file, so that a resumed run starts from the very same numbers.
    return load_into(FFDNet(), path).eval()


def _inner_converted(dense: FFDNet, tile: int) -> FFDNet:
    """A copy in which all convolutions but the first and last are Winograd layers."""
    model = convert(dense, tile)
    for end in (0, -1):
        model.model[end] = copy.deepcopy(dense.model[end])
    return model


def _fine_tuned(
    model: nn.Module,
    dense: nn.Module,
    config: FFDNetTraining,
    photos: Any,
    out_dir: Path,
    resume: bool,
    evaluate: Callable[[nn.Module], dict[str, Any]] | None,
    progress: bool,
) -> None:
    """Stage 2, in place."""
    patches = NoisyPatches(photos, config.patch, seed=_TRAINING_SEED)
    held_out = NoisyPatches(photos, config.patch, seed=_HELD_OUT_SEED)
    held_out_batches = [held_out.batch(i, config.batch) for i in range(_HELD_OUT_BATCHES)]
    loss = distillation(dense, _own_error, lambda batch: batch[1:])

    def figures(network: nn.Module) -> dict[str, Any]:
        with torch.no_grad():
            values = [float(loss(network, batch)) for batch in held_out_batches]
        more = {} if evaluate is None else evaluate(network)
        return {"held_out": sum(values) / len(values), **more}

    layers = whitened_layers(
        model,
        _inputs(
            NoisyPatches(photos, config.patch, seed=_WHITENING_SEED),
            config.whitening_patches,
            config.batch,
        ),
    )
    optimizer = WhitenedAdam(layers, model.parameters(), config.lr, config.lr_others)
    trainer = Trainer(
        model,
        optimizer,
        lambda step: patches.batch(step, config.batch),
        loss,
        TrainConfig(
            config.steps,
            warmup=40,
            log_every=config.log_every,
            save_every=config.save_every,
            average=_AVERAGE,
        ),
        out_dir,
        evaluate=figures,
    )
    trainer.run(resume, progress)


def _own_error(batch: tuple[Tensor, Tensor, Tensor], wanted: Tensor) -> Tensor:
    """Per sample of (clean, noisy, sigma), the dense network's own error, [N]."""
    return (wanted - batch[0]).square().flatten(1).mean(1) + _FLOOR


def _inputs(patches: NoisyPatches, count: int, batch: int) -> list[tuple[Tensor, Tensor]]:
    sizes = [min(batch, count - start) for start in range(0, count, batch)]
    return [patches.batch(i, size)[1:] for i, size in enumerate(sizes)]
