"""The operator of linear layers in Relax: ``sparsewino.linear(data, packed..., bias?)``.

What it computes, :mod:`.linear_operator` says. TVM knows it through
:mod:`tvm_sparsewino._autoload`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax
from tvm.ir import Op

from .._autoload import autoload
from ..config import Epilogue
from ..config_linear import LinearPlan
from ..schedules.linear_build import build_linear
from .kernel_calls import call_kernel
from .linear_operator import LINEAR, linear_output, linear_plan
from .operators import packed_attrs, vector_unit
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
    """A call of the layer's kernel."""
    plan, epilogue = linear_plan(call.attrs)
    leading = static_shape(call.args[0], "data")[:-1]
    unit = vector_unit(call.attrs)
    return call_kernel(
        builder, call, lambda specs: build_linear(plan, epilogue, specs, *unit, leading)
    )
