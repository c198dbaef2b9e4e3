"""The interface of a set of labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...errors import ShapeError


class ImageSource(Protocol):
    """Labelled images of one size.

    Attributes:
        labels: int64 [number of images].
        classes: how many different labels there may be.
        channels: of an image.
        size: height and width of an image.
    """

    labels: Tensor
    classes: int
    channels: int
    size: int

    def load(self, indices: Tensor, crops: Tensor | None = None) -> Tensor:
        """Images, uint8 [len(indices), channels, size, size].

        Args:
            indices: int64, which images.
            crops: uniform numbers in [0, 1), [len(indices), 4]: a random part of each image
                (area, shape, vertical and horizontal place) where images are larger than
                ``size``. None is the middle. Sources whose images have ``size`` ignore it.
        """
        ...


@dataclass(frozen=True)
class ArraySource:
    """Images that are in memory.

    Attributes:
        images: uint8 [number, channels, size, size].
        labels: int64 [number].
        classes: labels are below it.

    Raises:
        ShapeError: other shapes or dtypes, not square, no image, or a label out of range.
    """

    images: Tensor
    labels: Tensor
    classes: int

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != torch.uint8 or len(shape) != 4 or shape[2] != shape[3]:
            raise ShapeError(
                f"images must be uint8 [N, C, S, S], got {self.images.dtype} {list(shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != shape[:1] or not shape[0]:
            raise ShapeError(
                f"expected {shape[0]} labels, at least one, got {self.labels.dtype} "
                f"{list(self.labels.shape)}"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= self.classes:
            raise ShapeError(f"labels are {low} to {high}, expected 0 to {self.classes - 1}")

    @property
    def channels(self) -> int:
        """Of an image."""
        return self.images.shape[1]

    @property
    def size(self) -> int:
        """Height and width of an image."""
        return self.images.shape[2]

    def load(self, indices: Tensor, crops: Tensor | None = None) -> Tensor:
        """See :meth:`ImageSource.load`; ``crops`` is ignored."""
        return self.images[indices]
