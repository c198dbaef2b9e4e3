"""Every difference between TVM versions, and nothing else.

Written for apache-tvm 0.26 and 0.27 (Relax). Kernels use only the names of the first half, each
of which has a counterpart in the script builder of the Relay line.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir
from tvm import tirx as tir
from tvm.s_tir.schedule import ScheduleError
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

NOALIAS = "tirx.noalias"
# Set on a function that needs no more scheduling.
IS_SCHEDULED = "tirx.is_scheduled"

__all__ = [
    "IS_SCHEDULED",
    "NOALIAS",
    "ScheduleError",
    "T",
    "arg",
    "bind",
    "block_loops",
    "broadcast",
    "build_module",
    "child_blocks",
    "configure_thread_pool",
    "constant_array",
    "copied_tensor",
    "cpu_features",
    "dict_attrs",
    "export_library",
    "from_dlpack",
    "host_cpu",
    "inspect_asm",
    "is_known_cpu",
    "load_module",
    "local_buffer",
    "loop_extent",
    "make_target",
    "module_text",
    "multiply_add",
    "onnx_converters",
    "opaque",
    "prefetch",
    "prim_func",
    "ramp",
    "runtime_files",
    "runtime_tensor",
    "schedule",
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
    with IRBuilder() as builder, T.prim_func(s_tir=True):
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


def multiply_add(a: Any, b: Any, c: Any, lanes: int) -> tir.PrimExpr:
    """``a * b + c`` in one instruction where the CPU has it, even if ``a * b`` is needed twice."""
    dtype = f"float32x{lanes}" if lanes > 1 else "float32"
    return tir.call_llvm_pure_intrin(dtype, "llvm.fmuladd", a, b, c)


def prefetch(buffer: tir.Buffer, index: Any, write: bool = False) -> None:
    """Ask for the cache line of ``buffer[index]``, to be read or written; it may lie outside."""
    keep, data = 3, 1
    address = tir.address_of(buffer[index])
    T.evaluate(tir.call_intrin("void", "tirx.prefetch", address, int(write), keep, data))


def shuffle(vectors: Sequence[tir.PrimExpr], indices: Sequence[int]) -> tir.PrimExpr:
    """Lanes ``indices`` of the concatenated ``vectors``."""
    return tir.Shuffle(list(vectors), [tir.const(int(i), "int32") for i in indices])


def opaque(vector: tir.PrimExpr, lanes: int) -> tir.Var:
    """Evaluate a float32 ``vector`` here, as one value that LLVM does not look into."""
    dtype = "float32" if lanes == 1 else f"float32x{lanes}"
    return bind(tir.call_llvm_pure_intrin(dtype, "llvm.arithmetic.fence", vector))


# ---- scheduling what has no kernel -------------------------------------------------------------


def schedule(func: tir.PrimFunc) -> s_tir.Schedule:
    """A schedule of one PrimFunc, which is called "main" in it."""
    return s_tir.Schedule(tvm.IRModule({"main": func}))


def child_blocks(sch: s_tir.Schedule) -> list[Any]:
    """The blocks of a scheduled function in program order.

    Raises:
        ScheduleError: the function is not made of blocks.
    """
    return list(sch.get_child_blocks(sch.get_sblock("root")))


# The node around a block; 0.26 keeps it with the other statements.
_SBlockRealize = getattr(s_tir, "SBlockRealize", None) or tir.SBlockRealize


def block_loops(sch: s_tir.Schedule, block: Any) -> tuple[list[Any], list[Any]] | None:
    """The spatial and the reduction loops of a block, outermost first.

    None when the block is not alone in its loops, or when the loops are not one per iterator of
    the block, each iterator being just its loop's variable.
    """
    loops = sch.get_loops(block)
    realize = sch.get(loops[-1]).body if loops else None
    if not isinstance(realize, _SBlockRealize) or len(realize.iter_values) != len(loops):
        return None
    by_variable = {sch.get(loop).loop_var: loop for loop in loops}
    kinds: dict[int, list[Any]] = {tir.IterVar.DataPar: [], tir.IterVar.CommReduce: []}
    for iterator, value in zip(realize.block.iter_vars, realize.iter_values, strict=True):
        loop = by_variable.pop(value, None) if isinstance(value, tir.Var) else None
        if loop is None or iterator.iter_type not in kinds:
            return None
        kinds[iterator.iter_type].append(loop)
    return kinds[tir.IterVar.DataPar], kinds[tir.IterVar.CommReduce]


def loop_extent(sch: s_tir.Schedule, loop: Any) -> int:
    """Iterations of a loop, 0 when they are not known."""
    extent = sch.get(loop).extent
    return int(extent) if isinstance(extent, tir.IntImm) else 0


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


def copied_tensor(tensor: Any) -> Any:
    """A copy of TVM's tensor in memory of its own."""
    return tvm.runtime.tensor(tensor.numpy())


def from_dlpack(array: Any) -> Any:
    """The memory of ``array``, which has ``__dlpack__``, as TVM's tensor; nothing is copied."""
    return tvm_ffi.from_dlpack(array)


def runtime_files() -> tuple[str, list[str]]:
    """The folder of the C++ headers, and the libraries, that running a network takes."""
    runtime = os.path.join(os.path.dirname(tvm.__file__), "lib", "libtvm_runtime.so")
    return tvm_ffi.libinfo.find_include_path(), [runtime, tvm_ffi.libinfo.find_libtvm_ffi()]


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


def module_text(mod: tvm.IRModule) -> str:
    """A module as TVMScript, large constants left out."""
    try:
        return mod.script(show_meta=False)
    except TypeError:  # 0.26 cannot print calls with attributes of operators from outside of TVM
        return f"# TVM {tvm.__version__} cannot print this module.\n"


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


def onnx_converters() -> Mapping[str, Any]:
    """TVM's converters of ONNX operators: type -> class with ``get_converter(opset)``."""
    from tvm.relax.frontend.onnx import onnx_frontend

    converters = onnx_frontend._get_convert_map()
    return {name: converter for name, converter in converters.items() if converter is not None}
