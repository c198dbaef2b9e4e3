"""The operator of linear layers in Relax: ``sparsewino.linear(data, packed..., bias?)``.

What it computes, :mod:`.linear_operator` says. TVM knows it through
:mod:`tvm_sparsewino._autoload`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax, tirx
from tvm.ir import Op

from .._autoload import autoload
from .._compat import IS_SCHEDULED, tensor_dtype
from ..config import Epilogue
from ..config_linear import LinearPlan
from ..errors import in_context
from ..schedules.linear_build import build_linear
from .linear_operator import LINEAR, linear_output, linear_plan, vector_unit
from .operators import OPAQUE, packed_attrs
from .ops import static_shape


def packed_linear(
    data: relax.Expr,
    packed: Sequence[relax.Expr],
    bias: relax.Expr | None,
    *,
    plan: LinearPlan,
    epilogue: Epilogue,
    lanes: int,
    vector_registers: int,
) -> relax.Call:
    """A linear layer with packed weights.

    Args:
        data: float32 [..., C]; leading dimensions multiply to the plan's n.
        packed: the arrays of the packed weights, in the kernel's order.
        bias: float32, as long as the layout's ``padded_k``; None when the epilogue has none.
        plan: what the planner decided for the layer.
        epilogue: what the kernel does after the product.
        lanes, vector_registers: the vector unit that the weights were packed for.
    """
    autoload()
    attrs = packed_attrs(plan, epilogue, len(packed), lanes, vector_registers)
    return relax.Call(Op.get(LINEAR), [data, *packed, *([] if bias is None else [bias])], attrs)


def infer_linear(call: relax.Call, _builder: relax.BlockBuilder) -> relax.TensorType:
    """Type of a call; raises ShapeError naming the layer."""
    operands = call.args[1 + int(call.attrs["packed"]) :]
    shape = linear_output(call.attrs, call.args[0], operands, static_shape)
    return relax.TensorType(shape, "float32")


def legalize_linear(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A call of the layer's kernel; lengths of packed arrays stay symbolic, so layers that differ
    only in their zeros share one kernel.
    """
    plan, epilogue = linear_plan(call.attrs)
    packed = call.args[1 : 1 + int(call.attrs["packed"])]
    specs = tuple(
        ((tirx.Var(f"length_{i}", "int64"),), tensor_dtype(array.ty))
        for i, array in enumerate(packed)
    )
    leading = static_shape(call.args[0], "data")[:-1]
    with in_context(f"layer {plan.name!r}"):
        kernel = build_linear(plan, epilogue, specs, *vector_unit(call.attrs), leading)
    name = str(kernel.attrs["global_symbol"])
    kernel = kernel.with_attrs({"op_pattern": OPAQUE, IS_SCHEDULED: True})
    function = builder.add_func(kernel.without_attr("global_symbol"), name)
    return relax.call_tir(function, list(call.args), call.ty)
