"""The operators in Relay: how to make a call, and what its type is.

``sparsewino.winograd_conv2d(data, weight)``; the others take
``(data, (packed..., bias?, slope?, residual?))``: a Relay operator has a fixed number of operands,
so a tuple holds those that vary. What they compute, :mod:`..operators` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relay

from ..._compat import check_aliasing
from ...config import Epilogue, LayerPlan
from ...errors import ShapeError, in_context
from .. import operators
from ..operators import OPAQUE, PACKED, WINOGRAD
from .lowering import dense_meaning, kernel


def register() -> None:
    """Tell Relay about the operators; a second call changes nothing."""
    known = set(tvm.ir.Op.list_op_names())
    if WINOGRAD not in known:
        _register(WINOGRAD, "Convolution whose weights are Winograd coefficients.", _winograd_type)
        _strategy(WINOGRAD, lambda attrs, inputs, _: dense_meaning(attrs, inputs))
    for name in PACKED:
        if name not in known:
            _register(name, "Convolution with packed weights and a fused epilogue.", _packed_type)
            _strategy(name, lambda attrs, inputs, _: kernel(attrs, inputs))


def _register(name: str, doc: str, infer: Any) -> None:
    relay.op.op.register(name, doc)
    operator = relay.op.get(name)
    operands = ("data", "weight")
    operator.set_num_inputs(len(operands))
    for operand in operands:
        operator.add_argument(operand, "Expr", f"The {operand}.")
    operator.set_attrs_type_key("DictAttrs")
    operator.add_type_rel(f"{name}.type", infer)
    operator.set_support_level(10)
    relay.op.op.register_pattern(name, OPAQUE)
    relay.op.op.register_stateful(name, False)


def _strategy(name: str, compute: Any) -> None:
    @tvm.target.override_native_generic_func(f"{name.replace('.', '_')}_strategy")
    def strategy(_attrs: Any, _inputs: Any, _out_type: Any, target: Any) -> Any:
        check_aliasing(target)
        options = relay.op.op.OpStrategy()
        options.add_implementation(compute, _schedule, name=f"{name}.generic")
        return options

    relay.op.op.register_strategy(name, strategy)


def _schedule(_attrs: Any, outputs: Sequence[Any], _target: Any) -> Any:
    return tvm.te.create_schedule([output.op for output in outputs])


# ---- making calls ------------------------------------------------------------------------------


def winograd_conv2d(
    data: relay.Expr,
    weight: relay.Expr,
    *,
    m: int,
    r: int,
    points: Sequence[str],
    padding: Sequence[int],
    groups: int = 1,
    relu: bool = False,
) -> relay.Call:
    """A convolution with Winograd coefficients.

    Args:
        data: float32 [N, C, H, W].
        weight: float32 [alpha^2, K, C/groups], alpha = m + r - 1, coordinate i * alpha + j.
        m, r, points: the algorithm; points as text, "inf" last.
        padding: (top, left, bottom, right).
        groups: channel groups.
        relu: whether negative transformed inputs count as zero (a Winograd-ReLU layer).
    """
    register()
    attrs = operators.winograd_attrs(
        m=m, r=r, points=points, padding=padding, groups=groups, relu=relu
    )
    return relay.Call(relay.op.get(WINOGRAD), [data, weight], attrs)


def packed_conv2d(
    data: relay.Expr,
    packed: Sequence[relay.Expr],
    operands: Sequence[relay.Expr],
    *,
    plan: LayerPlan,
    epilogue: Epilogue,
    lanes: int,
    vector_registers: int,
) -> relay.Call:
    """A convolution with packed weights; the plan says which of the operators.

    Args:
        data: float32 [N, C, H, W].
        packed: the arrays of the packed weights, in the kernel's order.
        operands: bias [K], PReLU slope [K], residual [N, K, OH, OW]: those that ``epilogue`` has.
        plan: what the planner decided for the layer.
        epilogue: what the kernel does after the convolution.
        lanes, vector_registers: the vector unit that the weights were packed for.
    """
    register()
    attrs = operators.packed_attrs(plan, epilogue, len(packed), lanes, vector_registers)
    operator = relay.op.get(operators.packed_operator(plan.algorithm))
    return relay.Call(operator, [data, relay.Tuple([*packed, *operands])], attrs)


# ---- reading calls -----------------------------------------------------------------------------


def static_shape(ty: Any, what: str) -> tuple[int, ...]:
    """The shape of a float32 tensor type.

    Raises:
        ShapeError: no tensor, another dtype, or a shape that is not known at compile time.
    """
    if not isinstance(ty, relay.TensorType) or ty.dtype != "float32":
        raise ShapeError(f"{what} must be a float32 tensor, got {ty}")
    if not all(isinstance(d, tvm.tir.IntImm) for d in ty.shape):
        raise ShapeError(f"{what} has the shape {ty.shape}; every dimension must be a known number")
    return tuple(int(d) for d in ty.shape)


# ---- types -------------------------------------------------------------------------------------


def _winograd_type(types: Sequence[Any], attrs: Any) -> Any:
    if not all(isinstance(ty, relay.TensorType) for ty in types):
        return None  # not known yet
    with in_context(WINOGRAD):
        data, weight = types
        shapes = static_shape(data, "data"), static_shape(weight, "weight")
        shape = operators.winograd_shape(attrs, *shapes)
    return relay.TensorType((shape.n, shape.k, shape.oh, shape.ow), "float32")


def _packed_type(types: Sequence[Any], attrs: Any) -> Any:
    data, rest = types
    if not isinstance(data, relay.TensorType) or not isinstance(rest, relay.TupleType):
        return None  # not known yet
    operands = list(rest.fields)[int(attrs["packed"]) :]
    out = operators.packed_output(attrs, data, operands, static_shape)
    return relay.TensorType(out, "float32")
