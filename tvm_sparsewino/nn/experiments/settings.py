"""The settings of one experiment, as frozen dataclasses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ...errors import ConfigError

WHITENED = "whitened"
OPTIMIZERS = ("sgd", "adam", WHITENED)
PRECISIONS = ("float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True)
class Phase:
    """How a network is trained for a while.

    Attributes:
        epochs: passes over the training set; parts of one too. 0 trains nothing.
        optimizer: "sgd" (with Nesterov's momentum), "adam" (AdamW), or for networks whose zeros
            stay where they are "whitened" (:class:`~tvm_sparsewino.nn.precondition.WhitenedAdam`).
        lr: highest learning rate.
        winograd_lr: factor on it for Winograd coefficients, which there are after dense training.
        momentum: of "sgd"; of the others the decay of the first moment.
        weight_decay: on all weights but those of normalisation and biases.
        warmup: share of the steps in which the learning rate rises.
        final: learning rate at the end, as a share of the highest (cosine between).
        distil: share in [0, 1] of the loss that is the difference from what the dense network
            answers; the rest is the difference from the labels. Only after dense training.
        average: see :class:`~tvm_sparsewino.nn.training.TrainConfig`.
        cut: see :class:`~tvm_sparsewino.nn.training.TrainConfig`.
    """

    epochs: float = 4.0
    optimizer: str = "sgd"
    lr: float = 0.1
    winograd_lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    final: float = 0.0
    distil: float = 0.0
    average: float = 0.0
    cut: float = 0.0

    def __post_init__(self) -> None:
        _check(
            0 <= self.epochs < math.inf,
            f"epochs must be at least 0 and finite, got {self.epochs!r}",
        )
        _check(
            self.optimizer in OPTIMIZERS,
            f"optimizer must be one of {OPTIMIZERS}, got {self.optimizer!r}",
        )
        _check(self.lr > 0 and self.winograd_lr > 0, "learning rates must be above 0")
        for name in ("warmup", "final", "distil"):
            value = getattr(self, name)
            _check(0 <= value <= 1, f"{name} must be in [0, 1], got {value!r}")
        for name in ("momentum", "average"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"{name} must be in [0, 1), got {value!r}")
        _check(self.cut >= 0, f"cut must be at least 0, got {self.cut!r}")
        _check(self.weight_decay >= 0, f"weight_decay must be >= 0, got {self.weight_decay!r}")


@dataclass(frozen=True)
class Pruning:
    """What is pruned, and how.

    Attributes:
        method: one of :data:`.methods.METHODS`, "dense" (the dense phase alone) or "continued"
            (the dense network trained on: what pruning is compared with).
        tile: outputs per tile and dimension; one per kernel size, ``{"5": 4, "7": 2}``; or "auto",
            what the compiler's cost model finds fastest at this sparsity.
        sparsity: share of zeros in every Winograd layer.
        start: share of the steps before pruning starts.
        ramp: share of the steps until that sparsity is reached.
        every: steps between two updates of the masks; methods that prune at once have none, and
            "authors" brings its own.
        keep: names of convolutions that stay ordinary ones.
        options: more fields of :class:`~tvm_sparsewino.nn.PruneConfig`, over the method's own.
        images: training images that scales are measured on.
        filters: share of the filters that go first, whole, by their L1 norm
            (:mod:`tvm_sparsewino.nn.filter_pruning`); zeros are then of what is left.
    """

    method: str = "activation"
    tile: int | str | dict[str, int] = 4
    sparsity: float = 0.9
    start: float = 0.0
    ramp: float = 0.5
    every: int = 10
    keep: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    images: int = 512
    filters: float = 0.0

    def __post_init__(self) -> None:
        _check(0 <= self.sparsity < 1, f"sparsity must be in [0, 1), got {self.sparsity!r}")
        _check(0 <= self.filters < 1, f"filters must be in [0, 1), got {self.filters!r}")
        _check(
            0 <= self.start <= self.ramp <= 1,
            f"start and ramp must be in [0, 1] and in order, got {self.start!r} and {self.ramp!r}",
        )
        sizes = self.tile if isinstance(self.tile, dict) else {}
        _check(
            self.tile == "auto" or not isinstance(self.tile, str),
            f'tile must be a number, a table or "auto", got {self.tile!r}',
        )
        _check(
            all(name.isdigit() for name in sizes),
            f"tile must name kernel sizes, got {self.tile!r}",
        )
        _check(self.every >= 1 and self.images >= 1, "every and images must be at least 1")


@dataclass(frozen=True)
class Experiment:
    """A network, its data, dense training, pruning with fine-tuning.

    Attributes:
        network: one of :data:`.networks.NETWORKS`.
        network_options: arguments of its class besides classes, channels and size.
        data: one of :data:`tvm_sparsewino.nn.data.DATA_SETS`.
        data_folder: where its files are; None takes the installed package's.
        image_size: that images are brought to, for data "folders".
        seed: of everything that is drawn.
        batch: images per step, all processes together.
        shift, flip, crop: see :class:`~tvm_sparsewino.nn.data.Augment`; "crop" for "folders" only.
        dense: dense training.
        prune: what happens then.
        tune: training while and after that.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        precision: of the arithmetic; "bfloat16" and "float16" are mixed precision and take a GPU.
        save_every: steps between checkpoints.
        cost: measure time and memory of a training step against the dense network's.
    """

    network: str = "lenet5"
    network_options: dict[str, Any] = field(default_factory=dict)
    data: str = "digits"
    data_folder: str | None = None
    image_size: int | None = None
    seed: int = 1
    batch: int = 128
    shift: int = 0
    flip: bool = False
    crop: bool = False
    dense: Phase = field(default_factory=Phase)
    prune: Pruning = field(default_factory=Pruning)
    tune: Phase = field(default_factory=lambda: Phase(epochs=3.0, lr=0.05))
    device: str = "auto"
    precision: str = "float32"
    save_every: int = 200
    cost: bool = True

    def __post_init__(self) -> None:
        _check(
            self.precision in PRECISIONS,
            f"precision must be one of {PRECISIONS}, got {self.precision!r}",
        )
        _check(0 <= self.seed < 2**31, f"seed must be in [0, 2^31), got {self.seed!r}")
        _check(self.batch >= 1, f"batch must be at least 1, got {self.batch!r}")
        _check(
            self.image_size is None or self.image_size >= 1,
            f"image_size must be at least 1, got {self.image_size!r}",
        )
        _check(self.shift >= 0, f"shift must be at least 0, got {self.shift!r}")
        _check(self.save_every >= 1, f"save_every must be at least 1, got {self.save_every!r}")
        _check(self.dense.distil == 0, "dense.distil must be 0: there is nothing to distil from")
        _check(
            self.dense.winograd_lr == 1,
            "dense.winograd_lr must be 1: there are no Winograd coefficients yet",
        )
        _check(
            not self.crop or self.data == "folders",
            f"crop takes images larger than the network's input: data must be 'folders', "
            f"got {self.data!r}",
        )
        _check(
            self.prune.method != "continued" or self.tune.epochs > 0,
            "prune.method 'continued' trains on: tune.epochs must be above 0",
        )
        _check(
            self.prune.method != "continued" or self.tune.winograd_lr == 1,
            "tune.winograd_lr must be 1 for prune.method 'continued', which has no Winograd "
            f"coefficients, got {self.tune.winograd_lr!r}",
        )
        _check(
            self.dense.optimizer != WHITENED,
            f"dense.optimizer {WHITENED!r} is for pruned networks",
        )
        _check(self.dense.epochs > 0, "dense.epochs must be above 0")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
