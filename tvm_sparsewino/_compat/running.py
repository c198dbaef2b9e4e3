"""Running what was compiled. From the Relax line this loads TVM's small runtime library only.

The package ``tvm`` loads the compiler with LLVM, which takes four times the memory and the time. It
may be imported before or after: both sides then use the one runtime library.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

from .installed import IS_RELAX_LINE, tvm_folder
from .scope_notes import without_scope_notes

_RUNTIME = tvm_folder() / "lib" / "libtvm_runtime.so"
_CPU, _FIRST, _POOLED = 1, 0, 2  # kind and number of the device, kind of its allocator

if IS_RELAX_LINE:
    from tvm_ffi import from_dlpack as _from_dlpack
    from tvm_ffi import get_global_func, libinfo
    from tvm_ffi import load_module as _load_module

    if _RUNTIME.is_file():
        ctypes.CDLL(str(_RUNTIME), ctypes.RTLD_GLOBAL)
    else:  # built from source: only TVM knows where its libraries are
        importlib.import_module("tvm")
else:
    from tvm import get_global_func
    from tvm.runtime import load_module as _load_module
    from tvm.runtime.ndarray import from_dlpack as _from_dlpack


def from_dlpack(array: Any) -> Any:
    """The memory of ``array``, which has ``__dlpack__``, as TVM's tensor; nothing is copied."""
    return _from_dlpack(array)


def runtime_files() -> tuple[str, list[str]]:
    """The folder of the C++ headers, and the libraries, that running a network from Relax takes."""
    return libinfo.find_include_path(), [str(_RUNTIME), libinfo.find_libtvm_ffi()]


def load_module(path: str) -> Any:
    """Load a shared library that TVM exported. The file is code: it runs in this process."""
    with without_scope_notes():
        return _load_module(path)


def library_function(module: Any, name: str) -> Any:
    """A function that a loaded library exports."""
    return module.get_function(name, query_imports=True)


def virtual_machine(built: Any) -> Any:
    """A new Relax VM on the CPU for a compiled or loaded module; for one thread at a time.

    Returns:
        the VM as TVM's module: its functions, and those of the network, by name.
    """
    module = built.jit() if hasattr(built, "jit") else built  # compiled here, or loaded
    machine = module["vm_load_executable"]()
    machine["vm_initialization"](_CPU, _FIRST, _POOLED)
    return machine


def configure_thread_pool(threads: int) -> int:
    """Let TVM's pool of the calling thread use ``threads`` workers; returns how many it has.

    The pool is made by the first call in a thread, as large as TVM_NUM_THREADS says then.
    """
    big_cores = 1
    get_global_func("runtime.config_threadpool")(big_cores, threads)
    return get_global_func("runtime.NumThreads")()
