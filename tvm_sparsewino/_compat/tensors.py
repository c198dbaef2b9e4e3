"""The memory and the element type of TVM's tensors."""

from __future__ import annotations

import ctypes
import math
from typing import Any


def tensor_bytes(tensor: Any) -> memoryview:
    """The memory of a tensor that is C-contiguous and on the CPU; nothing is copied."""
    size = math.prod(tensor.shape) * tensor_element(tensor)[1] // 8
    return memoryview((ctypes.c_char * size).from_address(tensor.data_ptr() if size else 0))


def tensor_element(tensor: Any) -> tuple[int, int]:
    """Kind of the elements of a tensor as DLPack numbers it, and their bits."""
    dtype = tensor.dtype
    return int(dtype.type_code), int(dtype.bits) * int(dtype.lanes)
