"""PyTorch networks as functions of NumPy arrays, for code that measures and compares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def numpy_function(model: nn.Module) -> Callable[..., np.ndarray]:
    """``model`` in inference mode, arrays in and one array out; float32 arrays are not copied."""
    model.eval()

    def run(*arrays: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(*as_tensors(*arrays)).numpy()

    return run


def as_tensors(*arrays: np.ndarray) -> tuple[Tensor, ...]:
    """Tensors that share the memory of the arrays."""
    return tuple(map(torch.from_numpy, arrays))


def set_num_threads(threads: int) -> None:
    """Threads that PyTorch uses inside one operator."""
    torch.set_num_threads(threads)
