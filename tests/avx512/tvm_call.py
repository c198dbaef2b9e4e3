"""Calls of compiled TVM functions by their C interface, in a process that has no TVM.

The structures are those of DLPack (``dlpack.h``) and of tvm-ffi (``tvm/ffi/c_api.h``).
"""

import ctypes

import numpy as np

DLTENSOR_POINTER = 7  # kTVMFFIDLTensorPtr
CPU = 1  # kDLCPU
TYPE_CODES = {"i": 0, "u": 1, "f": 2}
ALIGNMENT = 64

# Pointers in a compiled library that TVM's loader sets, and this module instead.
RUNTIME = ("TVMBackendParallelLaunch", "TVMBackendAllocWorkspace", "TVMBackendFreeWorkspace")


class KernelError(RuntimeError):
    """The function refused its arguments, or ran out of scratch."""


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )


class AnyValue(ctypes.Structure):
    _fields_ = (
        ("type_index", ctypes.c_int32),
        ("padding", ctypes.c_uint32),
        ("value", ctypes.c_uint64),
    )


class Tensor:
    """A DLTensor that describes ``array``, and what it points to."""

    def __init__(self, array):
        self.array = aligned(array)
        self.shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        self.struct = DLTensor(
            data=self.array.ctypes.data,
            device_type=CPU,
            ndim=array.ndim,
            code=TYPE_CODES[array.dtype.kind],
            bits=8 * array.itemsize,
            lanes=1,
            shape=ctypes.addressof(self.shape),
        )


def aligned(array):
    """A contiguous copy that starts where TVM's own tensors may start."""
    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def call(emulator, library, function, arrays, stand_ins):
    """Run ``function`` of ``library`` on copies of ``arrays``; returns the last copy, the output.

    Raises:
        KernelError: the function returned an error.
        GuestFault: see :class:`emulator.Emulator`.
    """
    for name in RUNTIME:
        set_pointer(library, f"__{name}", getattr(stand_ins, name))
    tensors = [Tensor(array) for array in arrays]
    arguments = (AnyValue * len(tensors))(
        *(AnyValue(DLTENSOR_POINTER, 0, ctypes.addressof(t.struct)) for t in tensors)
    )
    result = AnyValue()
    status = emulator.call(
        getattr(library, f"__tvm_ffi_{function}"),
        0,
        ctypes.addressof(arguments),
        len(tensors),
        ctypes.addressof(result),
    )
    if ctypes.c_int32(status).value:
        text = ctypes.c_char.in_dll(stand_ins, "raised_error")
        raise KernelError(ctypes.string_at(ctypes.addressof(text)).decode())
    return tensors[-1].array


def set_pointer(library, name, function):
    """Point the variable ``name`` to ``function``; a library has only those that it uses."""
    try:
        variable = ctypes.c_void_p.in_dll(library, name)
    except ValueError:
        return
    variable.value = ctypes.cast(function, ctypes.c_void_p).value
