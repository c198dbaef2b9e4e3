"""Test images, their noise, the measure of quality; images are float32 [1, 3, H, W], 0 to 1."""

from __future__ import annotations

import math

import numpy as np

from ..extras import require

PHOTOS = ("china.jpg", "flower.jpg")
SIGMAS = (15, 25, 50)
HEIGHT, WIDTH = 424, 640

_SEED = 0


def photo(name: str) -> np.ndarray:
    """The top left 424 x 640 pixels of one of scikit-learn's sample photos.

    Raises:
        MissingExtra: scikit-learn or Pillow is not installed.
    """
    require("PIL", "demo")
    pixels = require("sklearn.datasets", "demo").load_sample_image(name)
    cropped = pixels[:HEIGHT, :WIDTH].astype(np.float32) / 255
    return np.ascontiguousarray(cropped.transpose(2, 0, 1)[None])


def with_noise(image: np.ndarray, sigma: float) -> np.ndarray:
    """``image`` plus white Gaussian noise of standard deviation ``sigma`` / 255, not clipped.

    Every call with one shape draws the same noise.
    """
    noise = np.random.default_rng(_SEED).standard_normal(image.shape)
    return image + (noise * (sigma / 255)).astype(np.float32)


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal to noise ratio in dB of ``image``, clipped to [0, 1], with 1 as the peak.

    Clipping is what showing an image does; on a denoiser's output it changes less than 0.02 dB.
    The mean is taken over all pixels and channels, in float64.
    """
    error = np.clip(image, 0, 1).astype(np.float64) - reference
    return -10 * math.log10(np.mean(error**2))
