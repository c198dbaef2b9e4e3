"""Functions that read an operand from the memory of their output."""

from __future__ import annotations

from .line import tir


def in_memory_of(func: tir.PrimFunc, position: int) -> tir.PrimFunc:
    """``func`` with a parameter less, which it reads from the memory of its last one, the output.

    Args:
        func: a function of a Relax module that stores every number of its output once, after it has
            read the parameter's number at the same place for the last time.
        position: which of its parameters; shape and dtype are those of the output.
    """
    read, output = func.params[position], func.params[-1]
    params = [param for i, param in enumerate(func.params) if i != position]
    body = tir.SeqStmt([tir.DeclBuffer(read, data=output.data), func.body])
    return tir.PrimFunc(params, body, func.ret_type, func.attrs)
