"""One phase of training a classifier: optimiser, loss, evaluation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import Augment, Batches, ImageSource
from ..data.fingerprint import images_id
from ..distributed import Ranks
from ..pruning import NativePruner
from ..training import TrainConfig, Trainer
from .optimizers import make_optimizer
from .precision import mixed
from .settings import Experiment, Phase

DENSE, TUNE = 0, 1  # streams of random numbers
_TEST_BATCH = 500


@dataclass(frozen=True)
class Setting:
    """What all phases of an experiment share.

    Attributes:
        experiment: what is to be done.
        data: training and test images.
        ranks: the processes that train together.
        device: of this process.
        progress: show bars and tables.
    """

    experiment: Experiment
    data: tuple[ImageSource, ImageSource]
    ranks: Ranks
    device: torch.device
    progress: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return torch.float64 if self.experiment.precision == "float64" else torch.float32

    def batches(self, stream: int) -> Batches:
        """Training batches; another order in each phase."""
        e = self.experiment
        return Batches(
            self.data[0],
            e.batch,
            2 * e.seed + stream,
            Augment(e.shift, e.flip, e.crop),
            self.ranks.rank,
            self.ranks.count,
            self.device,
            self.dtype,
        )

    @cached_property
    def images(self) -> str:
        """Which images these are, see :func:`~tvm_sparsewino.nn.data.fingerprint.images_id`."""
        return images_id(self.data)

    @cached_property
    def _tests(self) -> Batches:
        return self.batches(0)

    def steps(self, phase: Phase) -> int:
        """Of ``phase``, at least one for any part of an epoch."""
        whole = phase.epochs * (len(self.data[0].labels) // self.experiment.batch)
        return max(1, round(whole)) if phase.epochs else 0

    def image(self) -> Tensor:
        """An input of the network, [1, C, S, S]."""
        source = self.data[0]
        shape = (1, source.channels, source.size, source.size)
        return torch.zeros(shape, device=self.device, dtype=self.dtype)

    def samples(self, count: int) -> list[Tensor]:
        """The first ``count`` images of fine-tuning, in batches, the same on every process."""
        batches = self.batches(TUNE)
        batches.rank, batches.ranks = 0, 1
        size = self.experiment.batch
        images = torch.cat([batches(i)[0] for i in range(-(-count // size))])
        return list(images[:count].split(size))

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision, where it is asked for."""
        return mixed(self.experiment.precision, self.device)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy in per cent and mean loss over the test images."""
        training = model.training
        model.eval()
        figures = torch.zeros(3, dtype=torch.float64)
        with torch.no_grad(), self.autocast():
            for images, labels in self._tests.test(self.data[1], _TEST_BATCH):
                scores = model(images)
                loss = functional.cross_entropy(scores.float(), labels, reduction="sum")
                right = (scores.argmax(1) == labels).sum()
                figures += torch.tensor([float(right), float(loss), len(labels)])
        model.train(training)
        right, loss, count = self.ranks.sum(figures.to(self.device)).tolist()
        return {"accuracy": 100 * right / count, "test_loss": loss / count}


def train(
    setting: Setting,
    model: nn.Module,
    phase: Phase,
    stream: int,
    folder: Path,
    resume: bool,
    title: str,
    pruner: NativePruner | None = None,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """Train ``model`` for one phase in ``folder``, from its checkpoint if there is one."""
    steps = setting.steps(phase)
    batches = setting.batches(stream)
    config = TrainConfig(
        steps,
        warmup=round(phase.warmup * steps),
        final=phase.final,
        log_every=min(batches.per_epoch, steps),
        save_every=setting.experiment.save_every,
        average=phase.average,
        cut=phase.cut,
        seed=2 * setting.experiment.seed + stream,
    )
    half = setting.experiment.precision == "float16"
    model.train()
    trainer = Trainer(
        model,
        make_optimizer(model, phase, lambda: setting.samples(setting.experiment.prune.images)),
        batches,
        make_loss(setting, phase.distil, pruner, teacher),
        config,
        folder,
        evaluate=setting.evaluate,
        pruner=pruner,
        ranks=setting.ranks,
        scaler=torch.amp.GradScaler(setting.device.type) if half else None,
        title=title,
    )
    return trainer.run(resume, setting.progress)


def make_loss(
    setting: Setting, distil: float, pruner: NativePruner | None, teacher: nn.Module | None
) -> Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]:
    """Cross entropy with the labels, with the teacher's answers, and the pruner's penalty."""

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with setting.autocast():
            scores = network(images)
            with torch.no_grad():
                wanted = teacher(images) if distil else None
        scores = scores.to(setting.dtype)
        value = functional.cross_entropy(scores, labels)
        if wanted is not None:
            soft = functional.cross_entropy(scores, wanted.to(setting.dtype).softmax(1))
            value = (1 - distil) * value + distil * soft
        return value if pruner is None else value + pruner.penalty()

    return loss
