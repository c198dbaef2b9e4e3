"""The operators in Relax: how to make a call, and what its type is.

``sparsewino.winograd_conv2d(data, weight, bias?)``; the others take
``(data, packed..., bias?, slope?, residual?)``. What they compute, :mod:`.operators` says.
TVM knows them through :mod:`tvm_sparsewino._autoload`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from tvm import relax
from tvm.ir import Op

from .._autoload import autoload
from .._compat import tensor_dtype, tir
from ..config import ConvShape, Epilogue, LayerPlan
from ..errors import ShapeError, in_context
from . import operators
from .operators import WINOGRAD

# Operators of Relax that passes look for.
BATCH_NORM = "relax.nn.batch_norm"
CONV2D = "relax.nn.conv2d"
CONV2D_TRANSPOSE = "relax.nn.conv2d_transpose"
MATMUL = "relax.matmul"

# ---- making calls ------------------------------------------------------------------------------


def winograd_conv2d(
    data: relax.Expr,
    weight: relax.Expr,
    bias: relax.Expr | None = None,
    *,
    m: int,
    r: int,
    points: Sequence[str],
    padding: Sequence[int],
    groups: int = 1,
    relu: bool = False,
) -> relax.Call:
    """A convolution with Winograd coefficients.

    Args:
        data: float32 [N, C, H, W].
        weight: float32 [alpha^2, K, C/groups], alpha = m + r - 1, coordinate i * alpha + j.
        bias: float32 [K].
        m, r, points: the algorithm; points as text, "inf" last.
        padding: (top, left, bottom, right).
        groups: channel groups.
        relu: whether negative transformed inputs count as zero (a Winograd-ReLU layer).
    """
    attrs = operators.winograd_attrs(
        m=m, r=r, points=points, padding=padding, groups=groups, relu=relu
    )
    args = [data, weight] if bias is None else [data, weight, bias]
    return relax.Call(_operator(WINOGRAD), args, attrs)


def packed_conv2d(
    data: relax.Expr,
    packed: Sequence[relax.Expr],
    operands: Sequence[relax.Expr],
    *,
    plan: LayerPlan,
    epilogue: Epilogue,
    lanes: int,
    vector_registers: int,
) -> relax.Call:
    """A convolution with packed weights; the plan says which of the operators.

    Args:
        data: float32 [N, C, H, W].
        packed: the arrays of the packed weights, in the kernel's order.
        operands: bias [K], PReLU slope [K], residual [N, K, OH, OW]: those that ``epilogue`` has.
        plan: what the planner decided for the layer.
        epilogue: what the kernel does after the convolution.
        lanes, vector_registers: the vector unit that the weights were packed for.
    """
    attrs = operators.packed_attrs(plan, epilogue, len(packed), lanes, vector_registers)
    operator = _operator(operators.packed_operator(plan.algorithm))
    return relax.Call(operator, [data, *packed, *operands], attrs)


@cache
def _operator(name: str) -> Op:
    autoload()
    return Op.get(name)


# ---- reading calls -----------------------------------------------------------------------------


def is_call_to(expr: Any, name: str) -> bool:
    """Whether ``expr`` is a call of the operator ``name``."""
    return isinstance(expr, relax.Call) and isinstance(expr.op, Op) and expr.op.name == name


def static_shape(expr: relax.Expr, what: str, batch: int | None = None) -> tuple[int, ...]:
    """The shape of a float32 tensor.

    Args:
        expr: the tensor.
        what: what messages call it.
        batch: a number to put in the place of a first dimension that is open; None: it must not be.

    Raises:
        ShapeError: another dtype, or a shape that is not known at compile time.
    """
    ty = expr.ty
    if not isinstance(ty, relax.TensorType):
        raise ShapeError(f"{what} must be a tensor, got {ty}")
    if tensor_dtype(ty) != "float32":
        raise ShapeError(f"{what} must be float32, got {tensor_dtype(ty) or 'an unknown type'}")
    if not isinstance(ty.shape, relax.ShapeExpr):
        raise ShapeError(f"{what} has an unknown shape; every dimension must be a known number")
    extents = list(ty.shape.values)
    if batch is not None and extents and not isinstance(extents[0], tir.IntImm):
        extents[0] = batch
    try:
        return tuple(int(d) for d in extents)
    except TypeError as error:
        raise ShapeError(
            f"{what} has the symbolic shape {ty.shape}; every dimension must be a known number"
        ) from error


def winograd_shape(call: relax.Call, batch: int | None = None) -> ConvShape:
    """The shape of a ``winograd_conv2d`` call, checked.

    Args:
        call: the call.
        batch: as for :func:`static_shape`, of the data.

    Raises:
        ConfigError: attributes that make no algorithm.
        ShapeError: operands that do not fit each other or the attributes, or symbolic shapes.
    """
    data = static_shape(call.args[0], "data", batch)
    weight = static_shape(call.args[1], "weight")
    shape = operators.winograd_shape(call.attrs, data, weight)
    if len(call.args) == 3 and static_shape(call.args[2], "bias") != (shape.k,):
        raise ShapeError(f"bias must be [{shape.k}], got {static_shape(call.args[2], 'bias')}")
    return shape


# ---- types -------------------------------------------------------------------------------------


def infer_winograd_conv2d(call: relax.Call, _builder: relax.BlockBuilder) -> relax.TensorType:
    """Type of ``winograd_conv2d``, whose batch may be open; raises ShapeError or ConfigError naming
    the operator.
    """
    with in_context(WINOGRAD):
        if len(call.args) not in (2, 3):
            raise ShapeError(f"takes data, weight and perhaps bias, got {len(call.args)} operands")
        shape = winograd_shape(call, batch=1)
    batch = call.args[0].ty.shape.values[0]  # perhaps a symbol
    return relax.TensorType((batch, shape.k, shape.oh, shape.ow), "float32")


def infer_packed_conv2d(call: relax.Call, _builder: relax.BlockBuilder) -> relax.TensorType:
    """Type of a call with packed weights; raises ShapeError naming the layer."""
    operands = call.args[1 + int(call.attrs["packed"]) :]
    out = operators.packed_output(call.attrs, call.args[0], operands, static_shape)
    return relax.TensorType(out, "float32")
