"""Images in one folder per class: ``DIR/train/CLASS/*`` and ``DIR/val/CLASS/*``, as ImageNet is."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import WeightsError
from ...extras import require

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_TESTS = ("val", "test")
# A random part has 8 to 100 % of the image and sides in a ratio of 3/4 to 4/3; for a test the
# shorter side is 8/7 of what is cut out of the middle. C. Szegedy et al., arXiv:1409.4842,
# section 6; A. Krizhevsky et al. (2012), section 4.1.
_LEAST_AREA, _RATIO, _MARGIN = 0.08, 4 / 3, 8 / 7


class FolderSource:
    """Images decoded when they are asked for.

    Args:
        root: holds one folder of images per class; classes are numbered by sorted name.
        size: height and width that images are brought to.
        threads: that decode.

    Raises:
        MissingExtra: Pillow is not installed.
        WeightsError: no class, or no image in any.
    """

    channels = 3

    def __init__(self, root: Path, size: int = 224, threads: int = 4) -> None:
        self._image = require("PIL.Image", "train")
        self.size = size
        self.names = sorted(x.name for x in root.iterdir() if x.is_dir()) if root.is_dir() else []
        self.classes = len(self.names)
        found = [(x, i) for i, n in enumerate(self.names) for x in _images(root / n)]
        if not found:
            raise WeightsError(f"{root} has no folder with images")
        self._paths = [path for path, _ in found]
        self.labels = torch.tensor([label for _, label in found])
        self._pool = ThreadPoolExecutor(threads)

    def load(self, indices: Tensor, crops: Tensor | None = None) -> Tensor:
        """See :meth:`ImageSource.load`.

        Raises:
            WeightsError: an image that cannot be decoded.
        """
        draws = [None] * len(indices) if crops is None else crops.tolist()
        paths = [self._paths[i] for i in indices.tolist()]
        return torch.stack(list(self._pool.map(self._decode, paths, draws)))

    def _decode(self, path: Path, draw: list[float] | None) -> Tensor:
        try:
            with self._image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path} cannot be decoded: {error}") from error
        width, height = image.size
        box = _middle(width, height) if draw is None else _part(width, height, draw)
        image = image.resize((self.size, self.size), self._image.Resampling.BILINEAR, box)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def load_folders(folder: Path, train: bool, **options: Any) -> FolderSource:
    """The training or the test part of ``folder``.

    Raises:
        MissingExtra: Pillow is not installed.
        WeightsError: the part is missing or empty.
    """
    names = ("train",) if train else _TESTS
    for name in names:
        if (folder / name).is_dir():
            return FolderSource(folder / name, **options)
    raise WeightsError(f"{folder} has no folder {' or '.join(names)}")


def _images(folder: Path) -> list[Path]:
    return sorted(x for x in folder.rglob("*") if x.suffix.lower() in SUFFIXES)


def _middle(width: int, height: int) -> tuple[float, float, float, float]:
    side = min(width, height) / _MARGIN
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _part(width: int, height: int, draw: list[float]) -> tuple[float, float, float, float]:
    area = width * height * (_LEAST_AREA + (1 - _LEAST_AREA) * draw[0])
    ratio = math.exp(math.log(_RATIO) * (2 * draw[1] - 1))
    w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left, top = (width - w) * draw[3], (height - h) * draw[2]
    return left, top, left + w, top + h
