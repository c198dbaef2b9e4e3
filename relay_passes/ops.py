"""The Relax operators: how to make a call, what its type is, how to read its attributes.

``sparsewino.winograd_conv2d(data, weight, bias?)`` is what frontends produce: any engine could
run it. ``sparsewino.sparse_winograd_conv2d(data, packed..., bias?, slope?, residual?)`` is the
same function with weights packed for one kernel. ``sparsewino.direct_conv2d`` and
``sparsewino.sparse_conv2d`` have the same operands and attributes and convolve with packed spatial
weights, without transforms; the second leaves out those that are zero. Winograd convolutions have
stride 1 and dilation 1, the others any; all are NCHW float32.
TVM knows them through :mod:`tvm_sparsewino._autoload`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tvm import relax
from tvm.ir import Op

from .._autoload import autoload
from .._compat import dict_attrs, tensor_dtype
from ..config import ConvShape, Epilogue, LayerPlan
from ..cook_toom import CookToom, cook_toom, points_from_text
from ..errors import ShapeError, in_context

WINOGRAD = "sparsewino.winograd_conv2d"
SPARSE = "sparsewino.sparse_winograd_conv2d"
DIRECT = "sparsewino.direct_conv2d"
SPARSE_DIRECT = "sparsewino.sparse_conv2d"
_SPATIAL = {"dense_direct": DIRECT, "sparse_direct": SPARSE_DIRECT}


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
    attrs = dict_attrs(
        m=m,
        r=r,
        points=list(points),
        padding=[int(p) for p in padding],
        groups=groups,
        relu=bool(relu),
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
    attrs = dict_attrs(
        layer=plan.name,
        m=plan.m,
        packed=len(packed),
        lanes=lanes,
        vector_registers=vector_registers,
        plan=json.dumps(plan.to_json()),
        epilogue=json.dumps(epilogue.to_json()),
    )
    name = _SPATIAL.get(plan.algorithm, SPARSE)
    return relax.Call(_operator(name), [data, *packed, *operands], attrs)


def _operator(name: str) -> Op:
    autoload()
    return Op.get(name)


# ---- reading calls -----------------------------------------------------------------------------


def is_call_to(expr: Any, name: str) -> bool:
    """Whether ``expr`` is a call of the operator ``name``."""
    return isinstance(expr, relax.Call) and isinstance(expr.op, Op) and expr.op.name == name


def static_shape(expr: relax.Expr, what: str) -> tuple[int, ...]:
    """The shape of a float32 tensor.

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
    try:
        return tuple(int(d) for d in ty.shape.values)
    except TypeError as error:
        raise ShapeError(
            f"{what} has the symbolic shape {ty.shape}; every dimension must be a known number"
        ) from error


def winograd_algorithm(call: relax.Call) -> CookToom:
    """The algorithm that a ``winograd_conv2d`` call names.

    Raises:
        ConfigError: sizes or points that make no algorithm.
    """
    attrs = call.attrs
    points = points_from_text([str(p) for p in attrs["points"]])
    return cook_toom(int(attrs["m"]), int(attrs["r"]), points)


def has_winograd_relu(call: relax.Call) -> bool:
    """Whether a ``winograd_conv2d`` call counts negative transformed inputs as zero."""
    return bool(call.attrs["relu"])


def winograd_shape(call: relax.Call) -> ConvShape:
    """The shape of a ``winograd_conv2d`` call, checked.

    Raises:
        ConfigError: attributes that make no algorithm.
        ShapeError: operands that do not fit each other or the attributes, or symbolic shapes.
    """
    algorithm = winograd_algorithm(call)
    data = static_shape(call.args[0], "data")
    weight = static_shape(call.args[1], "weight")
    groups, padding = int(call.attrs["groups"]), tuple(int(p) for p in call.attrs["padding"])
    if len(data) != 4:
        raise ShapeError(f"data must be [N, C, H, W], got {data}")
    if len(weight) != 3 or weight[0] != algorithm.coordinates:
        raise ShapeError(f"{algorithm} needs weights [{algorithm.coordinates}, K, C], got {weight}")
    if len(padding) != 4 or min(padding) < 0:
        raise ShapeError(f"padding must be 4 numbers >= 0, got {padding}")
    n, c, h, w = data
    _, k, per_group = weight
    if groups < 1 or c != per_group * groups or k % groups:
        raise ShapeError(
            f"{c} input and {k} output channels do not fit {groups} groups of {per_group}"
        )
    if len(call.args) == 3 and static_shape(call.args[2], "bias") != (k,):
        raise ShapeError(f"bias must be [{k}], got {static_shape(call.args[2], 'bias')}")
    shape = ConvShape(n, c, h, w, k, algorithm.r, padding, groups)
    if min(n, k) < 1 or shape.oh < 1 or shape.ow < 1:
        raise ShapeError(f"a map {h}x{w} with padding {padding} is smaller than the filter")
    return shape


def sparse_plan(call: relax.Call) -> tuple[LayerPlan, Epilogue]:
    """The decisions that a call with packed weights carries."""
    plan = LayerPlan.from_json(str(call.attrs["plan"]))
    return plan, Epilogue.from_json(str(call.attrs["epilogue"]))


# ---- types -------------------------------------------------------------------------------------


def infer_winograd_conv2d(call: relax.Call, _builder: relax.BlockBuilder) -> relax.TensorType:
    """Type of ``winograd_conv2d``; raises ShapeError or ConfigError naming the operator."""
    with in_context(WINOGRAD):
        if len(call.args) not in (2, 3):
            raise ShapeError(f"takes data, weight and perhaps bias, got {len(call.args)} operands")
        shape = winograd_shape(call)
    return relax.TensorType((shape.n, shape.k, shape.oh, shape.ow), "float32")


def infer_packed_conv2d(call: relax.Call, _builder: relax.BlockBuilder) -> relax.TensorType:
    """Type of a call with packed weights; raises ShapeError naming the layer."""
    plan, epilogue = sparse_plan(call)
    shape = plan.conv
    out = (shape.n, shape.k, shape.oh, shape.ow)
    expected: list[tuple[str, tuple[int, ...]]] = []
    if epilogue.bias:
        expected.append(("bias", (shape.k,)))
    if epilogue.activation == "prelu":
        expected.append(("slope", (shape.k,)))
    if epilogue.residual:
        expected.append(("residual", out))
    operands = call.args[1 + int(call.attrs["packed"]) :]
    with in_context(f"layer {plan.name!r}"):
        if len(operands) != len(expected):
            names = [name for name, _ in expected]
            raise ShapeError(f"takes the operands {names} after the weights, got {len(operands)}")
        expected.append(("data", (shape.n, shape.c, shape.h, shape.w)))
        for (name, wanted), operand in zip(expected, [*operands, call.args[0]], strict=True):
            got = static_shape(operand, name)
            if got != wanted:
                raise ShapeError(f"{name} must be {wanted}, got {got}")
    return relax.TensorType(out, "float32")
