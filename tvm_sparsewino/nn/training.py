"""A small training loop: teacher distillation, checkpoints, exact resume, a log of every figure."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from ..config import PruneConfig
from ..errors import ConfigError, WeightsError, in_context
from ..files import replacing
from .pruning import NativePruner

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"

# A gradient longer than this many times its running mean is cut: one odd batch must not undo
# hundreds of steps.
_CUT = 2.0
_CUT_MEMORY = 0.95


@dataclass(frozen=True)
class TrainConfig:
    """How long and how carefully to train.

    Attributes:
        steps: optimiser steps in all.
        warmup: steps over which the learning rate rises from zero.
        final: learning rate at the end, as a share of the initial one (cosine between).
        log_every: steps between two log entries, each with an evaluation.
        save_every: steps between two checkpoints.
        average: decay per step of a running mean of all parameters, in [0, 1). The mean is what
            is evaluated and returned: it loses the jitter of the last steps. 0 is no mean.
    """

    steps: int
    warmup: int = 20
    final: float = 0.03
    log_every: int = 100
    save_every: int = 100
    average: float = 0.0

    def __post_init__(self) -> None:
        if min(self.steps, self.log_every, self.save_every) < 1 or self.warmup < 0:
            raise ConfigError(f"steps and intervals must be at least 1, got {self}")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"final must be in [0, 1], got {self.final!r}")
        if not 0 <= self.average < 1:
            raise ConfigError(f"average must be in [0, 1), got {self.average!r}")

    def rate(self, step: int) -> float:
        """The learning rate at ``step``, counted from 0, as a share of the initial one."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return rise * (self.final + (1 - self.final) * fall)


@dataclass
class Trainer:
    """Everything that one training run consists of.

    Attributes:
        model: what is trained.
        optimizer: its learning rates are the initial ones.
        batch: step -> a batch. The same step must give the same batch, which makes a resumed run
            equal to one that was never stopped.
        loss: (model, batch) -> scalar; see :func:`distillation`.
        config: length and intervals.
        folder: checkpoint and log go here.
        evaluate: model -> figures for the log; None logs the loss only.
        pruner: stepped after each optimiser step; None for fixed masks.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    config: TrainConfig
    folder: Path
    evaluate: Callable[[nn.Module], dict[str, Any]] | None = None
    pruner: NativePruner | None = None

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.step = 0
        self.seconds = 0.0
        self._mean_loss: float | None = None
        self._mean_norm: float | None = None
        self._mean = [p.detach().clone() for p in self.model.parameters()]
        self._initial = [group["lr"] for group in self.optimizer.param_groups]

    def run(self, resume: bool = True, progress: bool = True) -> nn.Module:
        """Train to the end, from the folder's checkpoint if there is one; returns the model.

        Args:
            resume: False starts anew and replaces what the folder holds.
            progress: show a progress bar.

        Raises:
            WeightsError: the checkpoint is not of this run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / CHECKPOINT
        if resume and path.exists():
            with in_context(str(path)):
                self._restore(path)
        self._trim_log()
        with _bar(progress) as bar:
            task = bar.add_task("training", total=self.config.steps, completed=self.step, note="")
            if self.step == 0:
                self._log()
            while self.step < self.config.steps:
                self._one_step()
                done = self.step == self.config.steps
                if done or self.step % self.config.log_every == 0:
                    self._log()
                if done or self.step % self.config.save_every == 0:
                    self._save(path)
                bar.update(task, completed=self.step, note=f"loss {self._mean_loss:.4g}")
        self._exchange()
        return self.model

    def _one_step(self) -> None:
        start = time.monotonic()
        for group, lr in zip(self.optimizer.param_groups, self._initial, strict=True):
            group["lr"] = lr * self.config.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model, self.batch(self.step))
        loss.backward()
        self._cut_gradient()
        self.optimizer.step()
        if self.pruner is not None:
            self.pruner.step()
        self._update_mean()
        value = float(loss.detach())
        mean = value if self._mean_loss is None else self._mean_loss
        self._mean_loss = 0.97 * mean + 0.03 * value
        self.step += 1
        self.seconds += time.monotonic() - start

    def _cut_gradient(self) -> None:
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        grads = [p.grad for p in parameters if p.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])))
        mean = norm if self._mean_norm is None else self._mean_norm
        if norm > _CUT * mean:
            torch._foreach_mul_(grads, _CUT * mean / norm)
        mixed = _CUT_MEMORY * mean + (1 - _CUT_MEMORY) * norm
        self._mean_norm = min(mixed, 1.2 * mean)

    @torch.no_grad()
    def _update_mean(self) -> None:
        # Early on the mean is over what there is, so that it does not cling to the start.
        decay = min(self.config.average, (self.step + 1) / (self.step + 10))
        for mean, parameter in zip(self._mean, self.model.parameters(), strict=True):
            mean.lerp_(parameter, 1 - decay if self.config.average else 1.0)

    @torch.no_grad()
    def _exchange(self) -> None:
        """Swap the parameters with their running mean."""
        for mean, parameter in zip(self._mean, self.model.parameters(), strict=True):
            current = parameter.clone()
            parameter.copy_(mean)
            mean.copy_(current)

    def _log(self) -> None:
        record = {"step": self.step, "seconds": round(self.seconds, 2), "loss": self._mean_loss}
        if self.pruner is not None:
            record["sparsity"] = self.pruner.sparsity
        if self.evaluate is not None:
            self._exchange()
            record.update(self.evaluate(self.model))
            self._exchange()
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _trim_log(self) -> None:
        """Drop what a killed run logged after its last checkpoint, or all when starting anew."""
        path = self.folder / LOG
        if path.exists():
            lines = path.read_text().splitlines()
            kept = [x for x in lines if self.step and json.loads(x)["step"] <= self.step]
            with replacing(path) as beside:
                beside.write_text("".join(x + "\n" for x in kept))

    def _save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": None if self.pruner is None else self.pruner.state_dict(),
            "config": asdict(self.config),
            "step": self.step,
            "seconds": self.seconds,
            "mean": self._mean,
            "mean_loss": self._mean_loss,
            "mean_norm": self._mean_norm,
        }
        with replacing(path) as beside:
            torch.save(state, beside)

    def _restore(self, path: Path) -> None:
        try:
            state = torch.load(path, weights_only=True)
            config, step = state["config"], state["step"]
        except Exception as error:
            raise WeightsError(f"not a checkpoint: {error}") from error
        if config != asdict(self.config):
            raise WeightsError(f"expected a run with {asdict(self.config)}, got {config}")
        if (state["pruner"] is None) != (self.pruner is None):
            raise WeightsError("only one of this run and the checkpoint prunes while it trains")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise WeightsError(f"the checkpoint is of another network: {error}") from error
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])
        self.step, self.seconds = step, state["seconds"]
        self._mean = state["mean"]
        self._mean_loss, self._mean_norm = state["mean_loss"], state["mean_norm"]


def distillation(
    teacher: nn.Module, relative_to: Callable[[Any, Tensor], Tensor] | None = None
) -> Callable[[nn.Module, Any], Tensor]:
    """A loss: mean square difference to what ``teacher`` gives for the same batch.

    The teacher runs without gradients, in the mode it is in.

    Args:
        teacher: the dense network.
        relative_to: (batch, teacher's output) -> per sample the error that counts as one, [N].
    """

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs = batch if isinstance(batch, (tuple, list)) else (batch,)
        with torch.no_grad():
            wanted = teacher(*inputs)
        errors = (model(*inputs) - wanted).square().flatten(1).mean(1)
        return (errors if relative_to is None else errors / relative_to(batch, wanted)).mean()

    return loss


def fine_tune(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Callable[[int], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    config: TrainConfig,
    folder: str | Path,
    prune: PruneConfig | None = None,
    evaluate: Callable[[nn.Module], dict[str, Any]] | None = None,
    resume: bool = True,
    progress: bool = True,
) -> nn.Module:
    """Train ``model``, pruning gradually if ``prune`` is given; see :class:`Trainer`.

    Raises:
        PruneError: ``prune`` is given and the model has no Winograd layer.
        WeightsError: the folder's checkpoint is not of this run.
    """
    pruner = None if prune is None else NativePruner(model, prune)
    trainer = Trainer(
        model, optimizer, batch, loss, config, Path(folder), evaluate=evaluate, pruner=pruner
    )
    return trainer.run(resume, progress)


def _bar(visible: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, disable=not visible)
