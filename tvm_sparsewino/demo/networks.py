"""The two networks of the demo, in PyTorch and compiled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import driver
from ..nn.inference import as_tensors, numpy_function
from ..nn.models import FFDNet, load_ffdnet
from ..nn.weights_io import load_into
from ..weights import WINOGRAD, load_weights
from .images import HEIGHT, WIDTH

PRUNED_WEIGHTS = Path(__file__).parent.parent / "data" / "ffdnet_winograd.safetensors"


@dataclass(frozen=True)
class Network:
    """One network twice.

    Attributes:
        torch: (image, sigma) -> image in PyTorch; sigma is float32 [1] on the scale of the image.
        compiled: the same function compiled, from :func:`tvm_sparsewino.driver.compile`.
        compile_s: seconds that compiling took, importing the model into TVM included.
    """

    torch: Callable[..., np.ndarray]
    compiled: Any
    compile_s: float


def dense_model() -> Any:
    """FFDNet with its published weights, a PyTorch module.

    Raises:
        MissingExtra: the package with the weights is not installed.
    """
    return load_ffdnet()


def pruned_model(path: Path) -> Any:
    """FFDNet with the weights of ``path``, its inner convolutions in the Winograd domain.

    Raises:
        WeightsError: the file is no weights file of an FFDNet.
    """
    return load_into(FFDNet(), path).eval()


def sparsity(path: Path) -> float:
    """Share of exact zeros among all Winograd coefficients in a weights file."""
    coefficients = [layer.u for layer in load_weights(path) if layer.kind == WINOGRAD]
    zeros = sum(u.size - np.count_nonzero(u) for u in coefficients)
    return zeros / max(sum(u.size for u in coefficients), 1)


def build(model: Any, target: str) -> Network:
    """Import ``model`` into TVM and compile it for 640 x 424 images.

    Raises:
        TargetError: an unknown target.
    """
    example = as_tensors(np.zeros((1, 3, HEIGHT, WIDTH), np.float32), level(0))
    start = time.perf_counter()
    compiled = driver.compile(driver.import_torch(model, example), target=target)
    return Network(numpy_function(model), compiled, time.perf_counter() - start)


def level(sigma: float) -> np.ndarray:
    """The networks' second input: the noise's standard deviation given on the scale of 0 to 255."""
    return np.array([sigma / 255], np.float32)
