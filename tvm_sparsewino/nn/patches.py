"""Training patches from the photographs that scikit-image installs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import MissingExtra, ShapeError
from ..extras import require

# Share of the draws per photo: natural scenes first, instruments' pictures for variety.
PHOTOS = {
    "astronaut.png": 2.0,
    "coffee.png": 2.0,
    "chelsea.png": 2.0,
    "rocket.jpg": 1.5,
    "motorcycle_left.png": 1.5,
    "motorcycle_right.png": 1.0,
    "ihc.png": 1.0,
    "hubble_deep_field.jpg": 0.7,
    "retina.jpg": 0.5,
}
# Reduced copies: other sharpness, other scales. Share of the draws per scale.
SCALES = {1.0: 1.0, 0.75: 0.7, 0.5: 0.7}

_NEGATIVES = 0.2


def load_photos() -> dict[str, Tensor]:
    """The photos by name, float32 [3, H, W], 0 to 1.

    Raises:
        MissingExtra: scikit-image or Pillow is not installed, or has none of these photos.
    """
    require("PIL", "train")
    package = require("skimage", "train")
    image = require("PIL.Image", "train")
    folder = Path(package.__file__).parent / "data"
    photos = {}
    for name in PHOTOS:
        if (folder / name).is_file():
            pixels = np.asarray(image.open(folder / name).convert("RGB"), np.float32) / 255
            photos[name] = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    if not photos:
        raise MissingExtra(f"no photos in {folder}: pip install 'scikit-image>=0.24'")
    return photos


class NoisyPatches:
    """Random patches with random noise: turned, mirrored, colours exchanged, some negatives.

    Args:
        photos: name -> [3, H, W], 0 to 1; names outside of ``PHOTOS`` count once.
        size: height and width of a patch.
        sigmas: lowest and highest standard deviation of the noise, on the scale of 0 to 255.
        seed: fixes every draw.

    Raises:
        ShapeError: no photo is as large as a patch.
    """

    def __init__(
        self,
        photos: dict[str, Tensor],
        size: int = 96,
        sigmas: tuple[float, float] = (5.0, 55.0),
        seed: int = 0,
    ) -> None:
        self.size, self.sigmas, self.seed = size, sigmas, seed
        self._images, weights = [], []
        for name, photo in photos.items():
            for scale, share in SCALES.items():
                image = _reduced(photo, scale)
                if min(image.shape[1:]) >= size:
                    self._images.append(image)
                    weights.append(share * PHOTOS.get(name, 1.0))
        if not self._images:
            raise ShapeError(f"no photo is as large as a patch of {size}x{size}")
        self._shares = np.array(weights) / sum(weights)

    def batch(self, step: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Batch number ``step``: clean and noisy [count, 3, size, size], sigma [count] (0 to 1).

        The same numbers give the same batch, in any order. Noise is not clipped.
        """
        rng = np.random.default_rng((self.seed, step))
        clean = torch.stack([self._patch(rng) for _ in range(count)])
        sigma = torch.from_numpy(rng.uniform(*self.sigmas, count).astype(np.float32) / 255)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        return clean, clean + noise * sigma.view(-1, 1, 1, 1), sigma

    def _patch(self, rng: np.random.Generator) -> Tensor:
        image = self._images[rng.choice(len(self._images), p=self._shares)]
        y, x = (int(rng.integers(n - self.size + 1)) for n in image.shape[1:])
        patch = image[:, y : y + self.size, x : x + self.size]
        patch = torch.rot90(patch, int(rng.integers(4)), (1, 2))
        if rng.random() < 0.5:
            patch = patch.flip(2)
        patch = patch[torch.from_numpy(rng.permutation(3))]
        return 1 - patch if rng.random() < _NEGATIVES else patch


def _reduced(photo: Tensor, scale: float) -> Tensor:
    if scale == 1.0:
        return photo
    small = torch.nn.functional.interpolate(
        photo[None], scale_factor=scale, mode="bicubic", antialias=True, align_corners=False
    )
    return small[0].clamp(0, 1)
