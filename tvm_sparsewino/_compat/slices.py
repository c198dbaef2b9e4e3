"""Functions whose parameters are contiguous parts of larger tensors."""

from __future__ import annotations

from collections.abc import Sequence

from .line import tir


def with_slices(func: tir.PrimFunc, positions: Sequence[int]) -> tir.PrimFunc:
    """``func`` with some of its tensors inside larger ones.

    A parameter that was [1, 8, 7, 9] becomes a tensor of four dimensions of any size, and the
    number of the element at which the old one begins comes as int64, behind all other parameters,
    in the order of ``positions``.

    Args:
        func: a function of a Relax module.
        positions: which of its parameters; tensors without gaps.
    """
    params, starts, views = list(func.params), [], []
    for position in positions:
        part = params[position]
        sizes = [tir.Var(f"{part.name}_size_{i}", "int64") for i in range(len(part.shape))]
        whole = tir.decl_buffer(sizes, part.dtype, name=f"{part.name}_whole")
        starts.append(tir.Var(f"{part.name}_start", "int64"))
        first = [tir.const(0, "int64")] * (len(sizes) - 1)
        address = tir.address_of(tir.BufferLoad(whole, [*first, starts[-1]]))
        views.append(tir.DeclBuffer(part, data=address))
        params[position] = whole
    body = tir.SeqStmt([*views, func.body])
    return tir.PrimFunc([*params, *starts], body, func.ret_type, func.attrs)
