"""NumPy arrays in memory that compiled code can read, so that it need not be copied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .constants import ALIGNMENT


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array whose first byte is at a multiple of 64; its values are arbitrary."""
    return _view(np.empty, tuple(shape), np.dtype(dtype))


def zeros(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """As :func:`empty`, of zeros; pages that are never written to take no memory."""
    return _view(np.zeros, tuple(shape), np.dtype(dtype))


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One-dimensional arrays of one dtype, at least one, behind each other as :func:`empty`."""
    result = empty((sum(map(len, arrays)),), arrays[0].dtype)
    return np.concatenate(arrays, out=result)


def is_aligned(array: np.ndarray) -> bool:
    """Whether the first byte of an array is at a multiple of 64."""
    return array.__array_interface__["data"][0] % ALIGNMENT == 0


def _view(make: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = make(size + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
