"""A checksum of the images that a run uses, whatever folder they are in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch

from .source import ImageSource

# Images of each part whose pixels are looked at, evenly spaced; of the others the labels alone.
_LOOKED_AT = 16


def images_id(parts: Iterable[ImageSource]) -> str:
    """Eight hexadecimal digits that two data sets share if they are the same.

    Sizes, classes, all labels in their order, and the pixels of some images of each part.

    Raises:
        WeightsError: one of those images cannot be decoded.
    """
    digest = hashlib.sha256()
    for part in parts:
        number = len(part.labels)
        digest.update(repr((number, part.classes, part.channels, part.size)).encode())
        digest.update(part.labels.numpy().tobytes())
        count = min(number, _LOOKED_AT)
        digest.update(part.load(torch.arange(count) * number // count).numpy().tobytes())
    return digest.hexdigest()[:8]
