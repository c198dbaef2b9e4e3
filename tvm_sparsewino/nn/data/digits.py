"""The 1797 digits that scikit-learn installs: a set for tests and first steps."""

from __future__ import annotations

import numpy as np
import torch

from ...extras import require
from .source import ArraySource

# The last ones were written by other people than the first: what scikit-learn's own example tests.
_TRAINING = 1347
_ENLARGED = 2  # 8x8 is smaller than what the networks take


def load_digits(train: bool) -> ArraySource:
    """Digits as 16x16 images, each pixel of the originals four times.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    digits = require("sklearn.datasets", "train").load_digits()
    part = slice(None, _TRAINING) if train else slice(_TRAINING, None)
    pixels = (digits.images[part] * (255 / 16)).astype(np.uint8)
    pixels = pixels.repeat(_ENLARGED, 1).repeat(_ENLARGED, 2)
    labels = digits.target[part].astype(np.int64)
    return ArraySource(torch.from_numpy(pixels[:, None].copy()), torch.from_numpy(labels), 10)
