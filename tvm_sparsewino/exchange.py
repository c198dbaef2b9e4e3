"""Arrays of other libraries as TVM's tensors and back, through DLPack, without copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compat import from_dlpack
from .aligned import empty, is_aligned
from .artefact import TensorInfo
from .constants import ALIGNMENT
from .errors import ShapeError


def shared_tensor(info: TensorInfo, array: Any) -> Any:
    """The memory of ``array`` as TVM's tensor: nothing is copied.

    Args:
        info: what the network expects.
        array: anything with ``__dlpack__``, such as NumPy's and JAX's arrays and PyTorch's
            tensors; C-contiguous, in CPU memory, its first byte at a multiple of 64.

    Raises:
        ShapeError: another shape or dtype, or memory that cannot be shared; names the input.
    """
    tensor = _exported(info, array)
    fault = _fault(tensor)
    if fault:
        raise ShapeError(f"input {info.name!r} cannot be used without a copy: {fault}")
    return tensor


def any_tensor(info: TensorInfo, array: Any) -> Any:
    """``array`` as TVM's tensor; copied where its memory cannot be shared.

    Args:
        info: what the network expects.
        array: as for :func:`shared_tensor` with any layout and byte order, or what NumPy makes an
            array of.

    Raises:
        ShapeError: another shape or dtype, or not in CPU memory; names the input.
    """
    if hasattr(array, "__dlpack__") and not isinstance(array, np.ndarray):
        tensor = _exported(info, array)
        return _copied(info, np.from_dlpack(tensor)) if _fault(tensor) else tensor
    array = np.asarray(array)
    native = array.dtype.newbyteorder("=")
    if native != np.dtype(info.dtype) or not info.fits(array.shape):
        raise ShapeError(
            f"input {info.name!r}: expected {info}, got {array.dtype} {list(array.shape)}"
        )
    flags = array.flags
    if flags.c_contiguous and flags.writeable and array.dtype.isnative and is_aligned(array):
        return from_dlpack(array)
    return _copied(info, array)


def array_of(tensor: Any) -> np.ndarray:
    """A NumPy array in the memory of TVM's tensor, which lives as long as the array."""
    return np.from_dlpack(tensor)


def copied_tensor(tensor: Any) -> Any:
    """A copy of TVM's tensor in memory of its own."""
    array = array_of(tensor)
    return _copied(TensorInfo("", array.shape, str(array.dtype)), array)


def aligned_empty(info: TensorInfo) -> np.ndarray:
    """An array with memory that :func:`shared_tensor` takes; its values are arbitrary.

    The batch must be a number, as :meth:`TensorInfo.of_batch` makes it.
    """
    return empty(info.shape, info.dtype)


def _exported(info: TensorInfo, array: Any) -> Any:
    """What ``array`` exports, checked for shape, dtype and place."""
    try:
        tensor = from_dlpack(array)
    except Exception as error:  # of the exporting library; the protocol names no kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ShapeError(
            f"input {info.name!r} cannot be taken through DLPack: {reason[0]}"
        ) from error
    dtype, shape = str(tensor.dtype), tuple(tensor.shape)
    if dtype != info.dtype or not info.fits(shape):
        raise ShapeError(f"input {info.name!r}: expected {info}, got {dtype} {list(shape)}")
    if tensor.device.type != "cpu":
        raise ShapeError(f"input {info.name!r} must be in CPU memory, not on {tensor.device}")
    return tensor


def _fault(tensor: Any) -> str:
    """Why compiled code cannot read this memory, "" if it can."""
    if not tensor.is_contiguous():
        return "it is not C-contiguous"
    if tensor.data_ptr() % ALIGNMENT and 0 not in tensor.shape:
        return f"its memory does not start at a multiple of {ALIGNMENT} bytes"
    return ""


def _copied(info: TensorInfo, array: np.ndarray) -> Any:
    """A copy in memory that compiled code can read, whatever the layout of ``array``."""
    copy = aligned_empty(info.of_batch(array.shape[0]) if array.ndim else info)
    copy[...] = array
    return from_dlpack(copy)
