"""A small training loop: teacher distillation, checkpoints, exact resume, a log of every figure."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, WeightsError, in_context
from ..files import replacing
from .distributed import Ranks
from .pruning import NativePruner
from .training_view import TrainingView

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"

_CUT_MEMORY = 0.95
_KEYS = {"model", "optimizer", "pruner", "scaler", "config", "step", "seconds", "mean"}
# Seeds of steps: a number of its own for each run, step and stream.
_PRIMES = (1_000_000_007, 1_009, 1)


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
        cut: a gradient longer than this many times its running mean is cut to that, so that one
            odd batch cannot undo hundreds of steps; 0 cuts nothing.
        seed: of what layers draw at random, a new sequence in each step; None leaves the global
            generators alone, and what is drawn from them is then not repeated on resuming.
    """

    steps: int
    warmup: int = 20
    final: float = 0.03
    log_every: int = 100
    save_every: int = 100
    average: float = 0.0
    cut: float = 2.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if min(self.steps, self.log_every, self.save_every) < 1 or self.warmup < 0:
            raise ConfigError(f"steps and intervals must be at least 1, got {self}")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"final must be in [0, 1], got {self.final!r}")
        if not 0 <= self.average < 1:
            raise ConfigError(f"average must be in [0, 1), got {self.average!r}")
        if self.cut < 0:
            raise ConfigError(f"cut must be at least 0, got {self.cut!r}")

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
        ranks: the processes that train together. Each calls everything; the first one writes.
        scaler: of the loss, for float16.
        title: what the progress bar says.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    config: TrainConfig
    folder: Path
    evaluate: Callable[[nn.Module], dict[str, Any]] | None = None
    pruner: NativePruner | None = None
    ranks: Ranks = field(default_factory=Ranks)
    scaler: torch.amp.GradScaler | None = None
    title: str = "training"

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.step = 0
        self.seconds = self.cpu_seconds = 0.0
        self._network = self.ranks.wrap(self.model)
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
        if resume:
            with in_context(str(path)):
                self._restore(path)
        self._trim_log()
        visible = progress and self.ranks.first
        with (
            kept_generators(self.model, self.config.seed is not None),
            TrainingView(self.config.steps, self.title, visible) as view,
        ):
            view.advance(self.step, "")
            if self.step == 0:
                view.add(self._log())
            while self.step < self.config.steps:
                self._one_step()
                done = self.step == self.config.steps
                if done or self.step % self.config.log_every == 0:
                    view.add(self._log())
                if done or self.step % self.config.save_every == 0:
                    self._save(path)
                view.advance(self.step, f"loss {self._mean_loss:.4g}")
        self._exchange()
        return self.model

    def _one_step(self) -> None:
        start, cpu_start = time.monotonic(), time.process_time()
        for group, lr in zip(self.optimizer.param_groups, self._initial, strict=True):
            group["lr"] = lr * self.config.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self._seed(1 + self.ranks.rank)
        loss = self.loss(self._network, self.batch(self.step))
        self._descend(loss)
        # Whatever a pruner draws must be the same on all ranks.
        self._seed(0)
        if self.pruner is not None:
            self.pruner.step()
        self._update_mean()
        value = float(self.ranks.sum(loss.detach())) / self.ranks.count
        mean = value if self._mean_loss is None else self._mean_loss
        self._mean_loss = 0.97 * mean + 0.03 * value
        self.step += 1
        self.seconds += time.monotonic() - start
        self.cpu_seconds += time.process_time() - cpu_start

    def _seed(self, stream: int) -> None:
        if self.config.seed is not None:
            numbers = (self.config.seed, self.step, stream)
            torch.manual_seed(sum(n * p for n, p in zip(numbers, _PRIMES, strict=True)) % 2**63)

    def _descend(self, loss: Tensor) -> None:
        """One step of the optimiser down the gradient of ``loss``."""
        if self.scaler is None:
            loss.backward()
            self._cut_gradient()
            self.optimizer.step()
            return
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        self._cut_gradient()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _cut_gradient(self) -> None:
        if not self.config.cut:
            return
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        grads = [p.grad for p in parameters if p.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])))
        if not math.isfinite(norm):
            return  # the scaler of float16 leaves this step out
        mean = norm if self._mean_norm is None else self._mean_norm
        if norm > self.config.cut * mean:
            torch._foreach_mul_(grads, self.config.cut * mean / norm)
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

    def _log(self) -> dict[str, Any]:
        record = {
            "step": self.step,
            "seconds": round(self.seconds, 2),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "loss": self._mean_loss,
        }
        if self.pruner is not None:
            record["sparsity"] = self.pruner.sparsity
        if self.evaluate is not None:
            self._exchange()
            record.update(self.evaluate(self.model))
            self._exchange()
        self.ranks.check_equal(self.model)
        if self.ranks.first:
            with (self.folder / LOG).open("a") as file:
                file.write(json.dumps(record) + "\n")
        return record

    def _trim_log(self) -> None:
        """Drop what a killed run logged after its last checkpoint, or all when starting anew."""
        path = self.folder / LOG
        if self.ranks.first and path.exists():
            kept = [x for x in read_log(path) if self.step and x["step"] <= self.step]
            with replacing(path) as beside:
                beside.write_text("".join(json.dumps(x) + "\n" for x in kept))

    def _save(self, path: Path) -> None:
        if not self.ranks.first:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": None if self.pruner is None else self.pruner.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "config": asdict(self.config),
            "step": self.step,
            "seconds": (self.seconds, self.cpu_seconds),
            "mean": self._mean,
            "mean_loss": self._mean_loss,
            "mean_norm": self._mean_norm,
        }
        with replacing(path) as beside:
            torch.save(state, beside)

    def _restore(self, path: Path) -> None:
        """Go on from the checkpoint, if there is one; the first rank reads it for all."""
        state = self.ranks.from_first(_read(path) if self.ranks.first else None)
        if state is None:
            return
        if isinstance(state, str):
            raise WeightsError(f"not a checkpoint: {state}")
        # How often it was saved changes nothing that comes out.
        own = asdict(self.config)
        config, step = {**state["config"], "save_every": own["save_every"]}, state["step"]
        if config != own:
            raise WeightsError(f"expected a run with {own}, got {config}")
        if (state["pruner"] is None) != (self.pruner is None):
            raise WeightsError("only one of this run and the checkpoint prunes while it trains")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise WeightsError(f"the checkpoint is of another network: {error}") from error
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.step, (self.seconds, self.cpu_seconds) = step, state["seconds"]
        for mean, saved in zip(self._mean, state["mean"], strict=True):
            mean.copy_(saved)
        self._mean_loss, self._mean_norm = state["mean_loss"], state["mean_norm"]


def distillation(
    teacher: nn.Module,
    relative_to: Callable[[Any, Tensor], Tensor] | None = None,
    inputs_of: Callable[[Any], Sequence[Tensor]] | None = None,
) -> Callable[[nn.Module, Any], Tensor]:
    """Make a loss: the mean square difference to the outputs of ``teacher`` for the same batch.

    The teacher runs without gradients, in the mode it is in.

    Args:
        teacher: the dense network.
        relative_to: (batch, teacher's output) -> per sample the error that counts as one, [N].
        inputs_of: batch -> positional arguments of both networks; if None, a tuple or list is
            those arguments, anything else the only one.

    Returns:
        (model, batch) -> the loss, a scalar.
    """

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs = _arguments(batch) if inputs_of is None else inputs_of(batch)
        with torch.no_grad():
            wanted = teacher(*inputs)
        errors = (model(*inputs) - wanted).square().flatten(1).mean(1)
        return (errors if relative_to is None else errors / relative_to(batch, wanted)).mean()

    return loss


def _arguments(batch: Any) -> Sequence[Any]:
    return batch if isinstance(batch, (tuple, list)) else (batch,)


def kept_generators(model: nn.Module, enabled: bool = True) -> AbstractContextManager[None]:
    """Inside, seeding changes nothing for those outside, on the CPU and the model's GPUs."""
    gpus = {p.device for p in model.parameters() if p.device.type == "cuda"}
    return torch.random.fork_rng(devices=gpus, enabled=enabled)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that a kill cut short is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def _read(path: Path) -> dict[str, Any] | str | None:
    """What the checkpoint holds, why it cannot be read, or None where there is none."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = _KEYS - set(state)
    except Exception as error:  # whatever damaged bytes make the reader raise
        return str(error)
    return f"{sorted(missing)} are missing" if missing else state
