"""Batches for training and for tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import ConfigError
from .source import ImageSource

# Images that the mean and the standard deviation of the channels are taken from.
_SAMPLE = 4096
_FLAT = 1 / 255  # the least deviation: channels of one value stay finite


@dataclass(frozen=True)
class Augment:
    """What is drawn anew for each image in each step.

    Attributes:
        shift: pixels that an image moves in each direction at most; zeros come in.
        flip: mirror half of the images, left to right.
        crop: a random part of the image, where images are larger than what the network takes.
    """

    shift: int = 0
    flip: bool = False
    crop: bool = False

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ConfigError(f"shift must be at least 0, got {self.shift!r}")


@dataclass
class Batches:
    """Step -> (images float [n, C, S, S], labels int64 [n]), a function of the step alone.

    Each epoch is a new permutation, whose last incomplete batch is left out; pixels are normalised
    by the training set's mean and deviation per channel. With several ranks each gets its part of
    the very batch that one rank would get, so that training does not depend on their number.

    Args:
        source: training images.
        batch: images per step, all ranks together.
        seed: fixes permutations and augmentation.
        augment: of training images.
        rank, ranks: this process, and how many there are.
        device, dtype: of what is returned.

    Raises:
        ConfigError: a batch that is larger than the source or that the ranks do not divide.
    """

    source: ImageSource
    batch: int
    seed: int
    augment: Augment = Augment()
    rank: int = 0
    ranks: int = 1
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    _ahead: tuple[int, Future] | None = field(default=None, init=False, repr=False)
    _order: tuple[int, Tensor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_batch(self.batch, len(self.source.labels), self.ranks)
        self.mean, self.deviation = _statistics(self.source)
        self._worker = ThreadPoolExecutor(1)

    @property
    def per_epoch(self) -> int:
        """Steps per epoch."""
        return len(self.source.labels) // self.batch

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's part of the batch of ``step``."""
        ahead, self._ahead = self._ahead, None
        ready = ahead[1].result() if ahead is not None and ahead[0] == step else self._make(step)
        # Images that are decoded are decoded while the network computes.
        if not hasattr(self.source, "images"):
            self._ahead = (step + 1, self._worker.submit(self._make, step + 1))
        images, labels = ready
        return self.normalised(images), labels.to(self.device)

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 [n, C, S, S] -> what the network takes."""
        x = images.to(self.device).to(self.dtype) / 255
        mean, deviation = (s.to(x)[:, None, None] for s in (self.mean, self.deviation))
        return (x - mean) / deviation

    def test(
        self, source: ImageSource, batch: int, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share of ``source`` in order, normalised as in training, not augmented."""
        number = len(source.labels) if limit is None else min(limit, len(source.labels))
        for indices in torch.arange(self.rank, number, self.ranks).split(batch):
            yield self.normalised(source.load(indices)), source.labels[indices].to(self.device)

    def _make(self, step: int) -> tuple[Tensor, Tensor]:
        indices = self._indices(step)
        generator = torch.Generator().manual_seed(_mix(self.seed, 1, step))
        # Drawn for the whole batch, whatever the number of ranks.
        crops = torch.rand(self.batch, 4, generator=generator)
        moves = torch.randint(
            -self.augment.shift, self.augment.shift + 1, (self.batch, 2), generator=generator
        )
        flips = torch.rand(self.batch, generator=generator) < 0.5
        mine = slice(
            self.rank * self.batch // self.ranks, (self.rank + 1) * self.batch // self.ranks
        )
        images = self.source.load(indices[mine], crops[mine] if self.augment.crop else None)
        if self.augment.flip:
            images = torch.where(flips[mine, None, None, None], images.flip(3), images)
        if self.augment.shift:
            images = _shifted(images, moves[mine])
        return images, self.source.labels[indices[mine]]

    def _indices(self, step: int) -> Tensor:
        epoch, place = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(_mix(self.seed, 0, epoch))
            self._order = epoch, torch.randperm(len(self.source.labels), generator=generator)
        return self._order[1][place * self.batch : (place + 1) * self.batch]


def check_batch(batch: int, number: int, ranks: int = 1) -> None:
    """Whether ``ranks`` processes can share batches of ``batch`` out of ``number`` images.

    Raises:
        ConfigError: a batch that is larger than the source or that the ranks do not divide.
    """
    if not 1 <= batch <= number or batch % ranks:
        raise ConfigError(
            f"batch must be 1 to {number} and a multiple of {ranks} ranks, got {batch!r}"
        )


def _mix(seed: int, stream: int, number: int) -> int:
    """A seed of its own for each number of each stream."""
    return ((seed * 1_000_003 + stream) * 100_000_007 + number) % 2**63


def _shifted(images: Tensor, moves: Tensor) -> Tensor:
    """Move image i by moves[i] = (down, right); zeros come in."""
    n, _, height, width = images.shape
    rows = torch.arange(height) - moves[:, :1]
    columns = torch.arange(width) - moves[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    picked = images[
        torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)
    return torch.where(inside[:, None], picked, 0)


def _statistics(source: ImageSource) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel of evenly spaced images, in units of 255."""
    number = len(source.labels)
    count = min(number, _SAMPLE)
    # From the first to the last: images are often kept class by class.
    indices = torch.arange(count) * number // count
    total, square = torch.zeros(2, source.channels, dtype=torch.float64)
    count = 0
    for part in indices.split(256):
        x = source.load(part).double() / 255
        total, square = total + x.sum((0, 2, 3)), square + x.square().sum((0, 2, 3))
        count += x.shape[0] * x.shape[2] * x.shape[3]
    mean = total / count
    return mean, (square / count - mean.square()).clamp_min(_FLAT**2).sqrt()
