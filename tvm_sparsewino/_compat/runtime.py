"""Building and running modules."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm

from .line import IS_RELAX_LINE, tir

if IS_RELAX_LINE:
    from tvm_ffi import from_dlpack as _from_dlpack
    from tvm_ffi import get_global_func, libinfo
else:
    from tvm import get_global_func
    from tvm.runtime.ndarray import from_dlpack as _from_dlpack


def make_target(options: Mapping[str, Any]) -> tvm.target.Target:
    """A Target from its options, "kind" among them."""
    return tvm.target.Target(dict(options))


def build_module(func: tir.PrimFunc, target: tvm.target.Target) -> Any:
    """Compile one PrimFunc; the result is indexed by its ``global_symbol``."""
    name = func.attrs["global_symbol"]
    if IS_RELAX_LINE:
        return tvm.compile(tvm.IRModule({name: func}), target=target)
    # Keep off the passes for functions made of blocks, as operators in TE do.
    return tvm.build(
        tvm.IRModule({name: func.with_attr("from_legacy_te_schedule", True)}), target=target
    )


def inspect_asm(built: Any) -> str:
    """The assembly text of what :func:`build_module` made."""
    return built.mod.inspect_source("asm") if IS_RELAX_LINE else built.get_source("asm")


def runtime_tensor(array: np.ndarray) -> Any:
    """A copy of ``array`` as TVM's tensor on the CPU."""
    return (tvm.runtime.tensor if IS_RELAX_LINE else tvm.nd.array)(array)


def copied_tensor(tensor: Any) -> Any:
    """A copy of TVM's tensor in memory of its own."""
    return runtime_tensor(tensor.numpy())


def from_dlpack(array: Any) -> Any:
    """The memory of ``array``, which has ``__dlpack__``, as TVM's tensor; nothing is copied."""
    return _from_dlpack(array)


def runtime_files() -> tuple[str, list[str]]:
    """The folder of the C++ headers, and the libraries, that running a network from Relax takes."""
    runtime = os.path.join(os.path.dirname(tvm.__file__), "lib", "libtvm_runtime.so")
    return libinfo.find_include_path(), [runtime, libinfo.find_libtvm_ffi()]


def load_module(path: str) -> Any:
    """Load a shared library that TVM exported. The file is code: it runs in this process."""
    with _without_scope_notes():
        return tvm.runtime.load_module(path)


def export_library(built: Any, path: str) -> None:
    """Write what ``tvm.compile`` or :func:`load_module` returned as a shared library."""
    with _without_scope_notes():
        built.export_library(path)


# One note per constant, logged as a warning whenever a network is saved or loaded.
_SCOPE_NOTE = re.compile(rb"executable\.cc:\d+: Warning: Scope (Saving|Loaded):")
_stderr_lock = threading.Lock()


@contextmanager
def _without_scope_notes() -> Iterator[None]:
    """Hold back what is written to the process's stderr; then pass on all but TVM's scope notes."""
    with _stderr_lock, tempfile.TemporaryFile() as held:
        try:
            stderr = os.dup(2)
        except OSError:  # closed, as in a daemon
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not _SCOPE_NOTE.search(line):
                    os.write(2, line)


def virtual_machine(module: Any) -> Any:
    """A new Relax VM on the CPU for a compiled or loaded module; for one thread at a time."""
    return tvm.relax.VirtualMachine(module, tvm.cpu())


def configure_thread_pool(threads: int) -> int:
    """Let TVM's pool of the calling thread use ``threads`` workers; returns how many it has.

    The pool is made by the first call in a thread, as large as TVM_NUM_THREADS says then.
    """
    big_cores = 1
    get_global_func("runtime.config_threadpool")(big_cores, threads)
    return get_global_func("runtime.NumThreads")()
