"""The operator of linear layers: ``sparsewino.linear(data, packed..., bias?)``.

Data float32 [..., C], result float32 [..., K]; weights are packed for one kernel, the bias is
completed by zeros to whole blocks. TVM knows it through :mod:`tvm_sparsewino._autoload`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax, tirx
from tvm.ir import Op

from .._autoload import autoload
from .._compat import IS_SCHEDULED, tensor_dtype
from ..config import Epilogue
from ..config_linear import LinearPlan
from ..errors import ShapeError, in_context
from ..schedules.linear_build import build_linear, linear_layout
from .operators import OPAQUE, packed_attrs
from .ops import static_shape

LINEAR = "sparsewino.linear"


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


def linear_plan(call: relax.Call) -> tuple[LinearPlan, Epilogue]:
    """The decisions that a call carries."""
    plan = LinearPlan.from_json(str(call.attrs["plan"]))
    return plan, Epilogue.from_json(str(call.attrs["epilogue"]))


def infer_linear(call: relax.Call, _builder: relax.BlockBuilder) -> relax.TensorType:
    """Type of a call; raises ShapeError naming the layer."""
    plan, epilogue = linear_plan(call)
    shape = plan.linear
    with in_context(f"layer {plan.name!r}"):
        data = static_shape(call.args[0], "data")
        rows = 1
        for extent in data[:-1]:
            rows *= extent
        if not data or (rows, data[-1]) != (shape.n, shape.c):
            raise ShapeError(f"data must have {shape.n} rows of {shape.c} features, got {data}")
        operands = call.args[1 + int(call.attrs["packed"]) :]
        if len(operands) != epilogue.bias:
            raise ShapeError(f"takes {int(epilogue.bias)} operands after the weights")
        padded = linear_layout(plan, *_unit(call)).padded_k
        if epilogue.bias and static_shape(operands[0], "bias") != (padded,):
            raise ShapeError(f"bias must be [{padded}], got {static_shape(operands[0], 'bias')}")
    return relax.TensorType((*data[:-1], shape.k), "float32")


def legalize_linear(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A call of the layer's kernel; lengths of packed arrays stay symbolic, so layers that differ
    only in their zeros share one kernel.
    """
    plan, epilogue = linear_plan(call)
    packed = call.args[1 : 1 + int(call.attrs["packed"])]
    specs = tuple(
        ((tirx.Var(f"length_{i}", "int64"),), tensor_dtype(array.ty))
        for i, array in enumerate(packed)
    )
    leading = static_shape(call.args[0], "data")[:-1]
    with in_context(f"layer {plan.name!r}"):
        kernel = build_linear(plan, epilogue, specs, *_unit(call), leading)
    name = str(kernel.attrs["global_symbol"])
    kernel = kernel.with_attrs({"op_pattern": OPAQUE, IS_SCHEDULED: True})
    function = builder.add_func(kernel.without_attr("global_symbol"), name)
    return relax.call_tir(function, list(call.args), call.ty)


def _unit(call: relax.Call) -> tuple[int, int]:
    return int(call.attrs["lanes"]), int(call.attrs["vector_registers"])
