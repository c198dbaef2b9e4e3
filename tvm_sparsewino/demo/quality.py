"""Quality of both networks, and whether TVM computes what PyTorch computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import SparseWinoError
from .images import PHOTOS, SIGMAS, photo, psnr, with_noise
from .networks import Network, level
from .report import Quality

# Rounding of twelve float32 layers is near 1e-6; a wrong kernel is off by far more than this.
MAX_REL_ERROR = 1e-4


@dataclass(frozen=True)
class Denoised:
    """One noisy photo, what both networks make of it in PyTorch, and TVM's relative error."""

    quality: Quality
    noisy: np.ndarray
    dense: np.ndarray
    pruned: np.ndarray
    rel_error: float


def denoise_all(dense: Network, pruned: Network) -> Iterator[Denoised]:
    """Every photo at every noise level, one after the other.

    Raises:
        SparseWinoError: a compiled network differs from PyTorch by ``MAX_REL_ERROR`` or more.
    """
    for name in PHOTOS:
        clean = photo(name)
        for sigma in SIGMAS:
            noisy = with_noise(clean, sigma)
            outputs = [network.torch(noisy, level(sigma)) for network in (dense, pruned)]
            errors = [
                relative_error(network.compiled(noisy, level(sigma)), output)
                for network, output in zip((dense, pruned), outputs, strict=True)
            ]
            _check(errors, f"{name}, sigma {sigma}")
            values = (psnr(image, clean) for image in (noisy, *outputs))
            yield Denoised(Quality(name, sigma, *values), noisy, *outputs, max(errors))


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value of ``expected``."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def _check(errors: list[float], where: str) -> None:
    for error, name in zip(errors, ("dense", "pruned"), strict=True):
        if not error < MAX_REL_ERROR:
            raise SparseWinoError(
                f"{where}: the compiled {name} network differs from PyTorch by {error:.1e} of the "
                f"output's maximum, {MAX_REL_ERROR:.0e} is allowed"
            )
