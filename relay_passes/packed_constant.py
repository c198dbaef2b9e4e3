"""Packed weights as constants in Relax."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compat import constant, constant_in_place
from ..aligned import is_aligned


def packed_constant(array: np.ndarray) -> Any:
    """An array that was made to become a constant, as one; nobody writes to it from now on.

    It is the array's own memory where compiled code can read that, as that of packed weights. What
    cannot be shared (views of other constants, arrays that begin elsewhere) is copied.
    """
    flags = array.flags
    if flags.c_contiguous and flags.writeable and is_aligned(array):
        return constant_in_place(array)
    return constant(array)
