"""Building kernels: what ``tvm.script.ir_builder`` spells in two ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .line import IS_RELAX_LINE, NOALIAS, IRBuilder, T, tir
from .relay_line import call_llvm, let

_PREFETCH = ("void", "tirx.prefetch") if IS_RELAX_LINE else ("int32", "tir.prefetch")


@contextmanager
def prim_func(name: str) -> Iterator[IRBuilder]:
    """Open a PrimFunc called ``name`` whose buffers do not alias; ``.get()`` it after the block."""
    options = {"s_tir": True} if IS_RELAX_LINE else {}
    with IRBuilder() as builder, T.prim_func(**options):
        T.func_name(name)
        T.func_attr({"global_symbol": name, NOALIAS: True})
        yield builder


def arg(name: str, shape: Sequence[int], dtype: str) -> tir.Buffer:
    """Declare the next buffer parameter of the open PrimFunc."""
    return T.arg(name, T.buffer(tuple(shape), dtype))


@contextmanager
def flat_view(buffer: tir.Buffer, size: int) -> Iterator[tir.Buffer]:
    """The ``size`` numbers of ``buffer``, a parameter of the open PrimFunc, as one dimension."""
    with view(buffer, (size,)) as flat:
        yield flat


@contextmanager
def view(buffer: tir.Buffer, shape: Sequence[int]) -> Iterator[tir.Buffer]:
    """The numbers of ``buffer`` under another shape."""
    if IS_RELAX_LINE:
        yield T.decl_buffer(tuple(shape), buffer.dtype, data=buffer.data)
    else:
        with T.decl_buffer(tuple(shape), buffer.dtype, data=buffer.data) as seen:
            yield seen


@contextmanager
def local_buffer(shape: Sequence[int], dtype: str = "float32") -> Iterator[tir.Buffer]:
    """A small array for the block; with constant indices it becomes registers."""
    if IS_RELAX_LINE:
        yield T.alloc_buffer(tuple(shape), dtype, scope="local")
    else:
        with T.decl_buffer(tuple(shape), dtype, scope="local") as buffer:
            yield buffer


@contextmanager
def scratch(shape: Sequence[int], dtype: str = "float32") -> Iterator[tir.Buffer]:
    """Memory for the block; inside a parallel loop each thread takes its own from TVM's pool."""
    if IS_RELAX_LINE:
        yield T.alloc_buffer(tuple(shape), dtype)
    else:
        with T.decl_buffer(tuple(shape), dtype) as buffer:
            yield buffer


def bind(value: tir.PrimExpr) -> tir.Var:
    """Evaluate ``value`` once, here, and return the variable that holds it."""
    return T.Bind(value) if IS_RELAX_LINE else let(value)


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
    return _llvm(_float32(lanes), "llvm.fmuladd", a, b, c)


def prefetch(buffer: tir.Buffer, index: Any, write: bool = False, level: int = 1) -> None:
    """Ask for the cache line of ``buffer[index]``, to be read or written; it may lie outside.

    It comes into the first cache or, to be read, into that of ``level``, 1 to 3.
    """
    keep, data = 4 - level, 1
    address = tir.address_of(buffer[index])
    T.evaluate(tir.call_intrin(*_PREFETCH, address, int(write), keep, data))


def shuffle(vectors: Sequence[tir.PrimExpr], indices: Sequence[int]) -> tir.PrimExpr:
    """Lanes ``indices`` of the concatenated ``vectors``."""
    return tir.Shuffle(list(vectors), [tir.const(int(i), "int32") for i in indices])


def opaque(vector: tir.PrimExpr, lanes: int) -> tir.Var:
    """Evaluate a float32 ``vector`` here, as one value that LLVM does not look into."""
    return bind(_llvm(_float32(lanes), "llvm.arithmetic.fence", vector))


def _float32(lanes: int) -> str:
    return f"float32x{lanes}" if lanes > 1 else "float32"


def _llvm(dtype: str, intrinsic: str, *args: Any) -> tir.PrimExpr:
    """A call of one of LLVM's intrinsics that is overloaded on the type of its result."""
    if IS_RELAX_LINE:
        return tir.call_llvm_pure_intrin(dtype, intrinsic, *args)
    return call_llvm(dtype, intrinsic, *args)
