"""Every difference between TVM versions, and nothing else.

Written for apache-tvm 0.26 and 0.27 (Relax). Kernels use only the names of the first half, each
of which has a counterpart in the script builder of the Relay line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx as tir
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

NOALIAS = "tirx.noalias"
# Set on a function that needs no more scheduling.
IS_SCHEDULED = "tirx.is_scheduled"

__all__ = [
    "IS_SCHEDULED",
    "NOALIAS",
    "T",
    "arg",
    "bind",
    "broadcast",
    "build_module",
    "configure_thread_pool",
    "constant_array",
    "cpu_features",
    "dict_attrs",
    "host_cpu",
    "inspect_asm",
    "is_known_cpu",
    "load_module",
    "local_buffer",
    "make_target",
    "prim_func",
    "ramp",
    "runtime_tensor",
    "scratch",
    "shuffle",
    "tensor_dtype",
    "tir",
    "virtual_machine",
]


# ---- building kernels --------------------------------------------------------------------------


@contextmanager
def prim_func(name: str) -> Iterator[IRBuilder]:
    """Open a PrimFunc called ``name`` whose buffers do not alias; ``.get()`` it after the block."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name(name)
            T.func_attr({"global_symbol": name, NOALIAS: True})
            yield builder


def arg(name: str, shape: Sequence[int], dtype: str) -> tir.Buffer:
    """Declare the next buffer parameter of the open PrimFunc."""
    return T.arg(name, T.buffer(tuple(shape), dtype))


@contextmanager
def local_buffer(shape: Sequence[int], dtype: str = "float32") -> Iterator[tir.Buffer]:
    """A small array for the block; with constant indices it becomes registers."""
    yield T.alloc_buffer(tuple(shape), dtype, scope="local")


@contextmanager
def scratch(shape: Sequence[int], dtype: str = "float32") -> Iterator[tir.Buffer]:
    """Memory for the block; inside a parallel loop each thread takes its own from TVM's pool."""
    yield T.alloc_buffer(tuple(shape), dtype)


def bind(value: tir.PrimExpr) -> tir.Var:
    """Evaluate ``value`` once, here, and return the variable that holds it."""
    return T.Bind(value)


def ramp(base: Any, stride: int, lanes: int) -> Any:
    """The vector index ``base, base + stride, ...``; just ``base`` for one lane."""
    return tir.Ramp(base, stride, lanes) if lanes > 1 else base


def broadcast(value: Any, lanes: int) -> Any:
    """``value`` (a float32 number or a scalar expression) in every lane."""
    if isinstance(value, int | float):
        value = tir.const(float(value), "float32")
    return tir.Broadcast(value, lanes) if lanes > 1 else value


def shuffle(vectors: Sequence[tir.PrimExpr], indices: Sequence[int]) -> tir.PrimExpr:
    """Lanes ``indices`` of the concatenated ``vectors``."""
    return tir.Shuffle(list(vectors), [tir.const(int(i), "int32") for i in indices])


# ---- building and running modules --------------------------------------------------------------


def make_target(options: Mapping[str, Any]) -> tvm.target.Target:
    """A Target from its options, "kind" among them."""
    return tvm.target.Target(dict(options))


def build_module(func: tir.PrimFunc, target: tvm.target.Target) -> Any:
    """Compile one PrimFunc; the result is indexed by its ``global_symbol``."""
    return tvm.compile(tvm.IRModule({func.attrs["global_symbol"]: func}), target=target)


def inspect_asm(built: Any) -> str:
    """The assembly text of what :func:`build_module` made."""
    return built.mod.inspect_source("asm")


def runtime_tensor(array: np.ndarray) -> Any:
    """A copy of ``array`` as TVM's tensor on the CPU."""
    return tvm.runtime.tensor(array)


def load_module(path: str) -> Any:
    """Load a shared library that TVM exported. The file is code: it runs in this process."""
    return tvm.runtime.load_module(path)


def virtual_machine(module: Any) -> Any:
    """A new Relax VM on the CPU for a compiled or loaded module; for one thread at a time."""
    return tvm.relax.VirtualMachine(module, tvm.cpu())


def configure_thread_pool(threads: int) -> int:
    """Let TVM's pool of the calling thread use ``threads`` workers; returns how many it has.

    The pool is made by the first call in a thread, as large as TVM_NUM_THREADS says then.
    """
    big_cores = 1
    tvm_ffi.get_global_func("runtime.config_threadpool")(big_cores, threads)
    return tvm_ffi.get_global_func("runtime.NumThreads")()


# ---- what LLVM knows about CPUs ----------------------------------------------------------------


def host_cpu() -> str:
    """LLVM's name of the CPU this runs on."""
    return tvm.target.codegen.llvm_get_system_cpu()


def is_known_cpu(mcpu: str) -> bool:
    """Whether LLVM has a CPU of this name for the host's architecture."""
    codegen = tvm.target.codegen
    return codegen.llvm_is_valid_cpu(mcpu, codegen.llvm_get_system_triple())


def cpu_features(target: tvm.target.Target) -> frozenset[str]:
    """LLVM's names of the features that code for ``target`` may use."""
    return frozenset(str(f) for f in tvm.target.codegen.llvm_get_cpu_features(target))


# ---- Relax -------------------------------------------------------------------------------------


def dict_attrs(**values: Any) -> tvm.ir.Attrs:
    """Attributes of a call as a dictionary of numbers, strings and lists of them."""
    return tvm.ir.make_node("ir.DictAttrs", **values)


def tensor_dtype(ty: tvm.relax.TensorType) -> str:
    """The element type of a tensor type, such as "float32"; "" when it is unknown."""
    return str(ty.dtype.dtype) if ty.dtype is not None else ""


def constant_array(expr: Any) -> np.ndarray | None:
    """The value of a constant tensor in Relax, None for anything else."""
    if hasattr(tvm.relax, "Constant"):  # 0.26
        value = expr.data if isinstance(expr, tvm.relax.Constant) else None
    else:
        value = expr.value if isinstance(expr, tvm.ir.GenericConst) else None
    return value.numpy() if isinstance(value, tvm.runtime.Tensor) else None
