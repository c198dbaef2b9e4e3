"""Turn an operator with packed weights into a call of its kernel, for every kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, tirx

from .._compat import IS_SCHEDULED, tensor_dtype
from ..errors import in_context
from .operators import OPAQUE

# Shapes and dtypes of the packed arrays.
Specs = tuple[tuple[tuple[Any, ...], str], ...]


def call_kernel(
    builder: relax.BlockBuilder, call: relax.Call, build: Callable[[Specs], tirx.PrimFunc]
) -> relax.Expr:
    """The call of the kernel that ``build`` makes for packed arrays of these shapes and dtypes.

    The lengths of the packed arrays, which depend on where the zeros are, stay symbolic: layers
    that differ in nothing else share one kernel, which is compiled once. Messages name the layer.
    """
    packed = call.args[1 : 1 + int(call.attrs["packed"])]
    specs = tuple(
        ((tirx.Var(f"length_{i}", "int64"),), tensor_dtype(array.ty))
        for i, array in enumerate(packed)
    )
    with in_context(f"layer {str(call.attrs['layer'])!r}"):
        kernel = build(specs)
    return relax.call_tir(add_kernel(builder, kernel), list(call.args), call.ty)


def add_kernel(builder: relax.BlockBuilder, kernel: tirx.PrimFunc) -> Any:
    """Add a kernel to the module: nothing is fused with it, no rule schedules it."""
    name = str(kernel.attrs["global_symbol"])
    kernel = kernel.with_attrs({"op_pattern": OPAQUE, IS_SCHEDULED: True})
    return builder.add_func(kernel.without_attr("global_symbol"), name)
