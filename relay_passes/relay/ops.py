"""The operators in Relay: their names, attributes, types and calls, as in Relax.

``sparsewino.winograd_conv2d(data, weight)`` is what frontends produce. The others take
``(data, (packed..., bias?, slope?, residual?))``: a Relay operator has a fixed number of operands,
so a tuple holds those that vary. All are NCHW float32.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relay

from ..._compat import check_aliasing, dict_attrs
from ...config import ConvShape, Epilogue, LayerPlan
from ...cook_toom import CookToom, cook_toom, points_from_text
from ...errors import ShapeError, in_context
from ...geometry import check_shape
from .lowering import dense_meaning, kernel

WINOGRAD = "sparsewino.winograd_conv2d"
SPARSE = "sparsewino.sparse_winograd_conv2d"
DIRECT = "sparsewino.direct_conv2d"
SPARSE_DIRECT = "sparsewino.sparse_conv2d"
_PACKED = {
    "sparse_winograd": SPARSE,
    "dense_winograd": SPARSE,
    "dense_direct": DIRECT,
    "sparse_direct": SPARSE_DIRECT,
}

# TVM's pattern kind of an operator that fusion must leave alone.
_OPAQUE = relay.op.OpPattern.OPAQUE


def register() -> None:
    """Tell Relay about the operators; a second call changes nothing."""
    known = set(tvm.ir.Op.list_op_names())
    if WINOGRAD not in known:
        _register(WINOGRAD, "Convolution whose weights are Winograd coefficients.", _winograd_type)
        _strategy(WINOGRAD, lambda attrs, inputs, _: dense_meaning(algorithm(attrs), attrs, inputs))
    for name in dict.fromkeys(_PACKED.values()):
        if name not in known:
            _register(name, "Convolution with packed weights and a fused epilogue.", _packed_type)
            _strategy(name, lambda attrs, inputs, _: kernel(*packed_plan(attrs), attrs, inputs))


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
    relay.op.op.register_pattern(name, _OPAQUE)
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
    attrs = dict_attrs(
        m=m,
        r=r,
        points=list(points),
        padding=[int(p) for p in padding],
        groups=groups,
        relu=int(relu),
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
    attrs = dict_attrs(
        layer=plan.name,
        m=plan.m,
        packed=len(packed),
        lanes=lanes,
        vector_registers=vector_registers,
        plan=json.dumps(plan.to_json()),
        epilogue=json.dumps(epilogue.to_json()),
    )
    operator = relay.op.get(_PACKED[plan.algorithm])
    return relay.Call(operator, [data, relay.Tuple([*packed, *operands])], attrs)


# ---- reading calls -----------------------------------------------------------------------------


def algorithm(attrs: Any) -> CookToom:
    """The algorithm that the attributes of ``winograd_conv2d`` name.

    Raises:
        ConfigError: sizes or points that make no algorithm.
    """
    points = points_from_text([str(p) for p in attrs["points"]])
    return cook_toom(int(attrs["m"]), int(attrs["r"]), points)


def winograd_shape(attrs: Any, data: tuple[int, ...], weight: tuple[int, ...]) -> ConvShape:
    """The shape of a ``winograd_conv2d`` call, checked.

    Raises:
        ConfigError: attributes that make no algorithm.
        ShapeError: operands that do not fit each other or the attributes.
    """
    winograd, groups = algorithm(attrs), int(attrs["groups"])
    padding = tuple(int(p) for p in attrs["padding"])
    if len(data) != 4 or len(weight) != 3 or weight[0] != winograd.coordinates:
        raise ShapeError(
            f"{winograd} needs data [N, C, H, W] and weights [{winograd.coordinates}, K, C], "
            f"got {data} and {weight}"
        )
    (n, c, h, w), (_, k, per_group) = data, weight
    if groups < 1 or c != per_group * groups:
        raise ShapeError(f"{c} input channels do not fit {groups} groups of {per_group}")
    shape = ConvShape(n, c, h, w, k, winograd.r, padding, groups)
    check_shape(shape)
    return shape


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


def packed_plan(attrs: Any) -> tuple[LayerPlan, Epilogue]:
    """The decisions that a call with packed weights carries."""
    plan = LayerPlan.from_json(str(attrs["plan"]))
    return plan, Epilogue.from_json(str(attrs["epilogue"]))


# ---- types -------------------------------------------------------------------------------------


def _winograd_type(types: Sequence[Any], attrs: Any) -> Any:
    if not all(isinstance(ty, relay.TensorType) for ty in types):
        return None  # not known yet
    with in_context(WINOGRAD):
        data, weight = types
        shapes = static_shape(data, "data"), static_shape(weight, "weight")
        shape = winograd_shape(attrs, *shapes)
    return relay.TensorType((shape.n, shape.k, shape.oh, shape.ow), "float32")


def _packed_type(types: Sequence[Any], attrs: Any) -> Any:
    data, rest = types
    if not isinstance(data, relay.TensorType) or not isinstance(rest, relay.TupleType):
        return None  # not known yet
    plan, epilogue = packed_plan(attrs)
    shape = plan.conv
    out = (shape.n, shape.k, shape.oh, shape.ow)
    expected = [("data", (shape.n, shape.c, shape.h, shape.w))]
    expected += [("bias", (shape.k,))] * epilogue.bias
    expected += [("slope", (shape.k,))] * (epilogue.activation == "prelu")
    expected += [("residual", out)] * epilogue.residual
    given = [data, *list(rest.fields)[int(attrs["packed"]) :]]
    with in_context(f"layer {plan.name!r}"):
        if len(given) != len(expected):
            raise ShapeError(f"takes {[n for n, _ in expected]} and weights, got {len(given)}")
        for (name, wanted), ty in zip(expected, given, strict=True):
            if static_shape(ty, name) != wanted:
                raise ShapeError(f"{name} must be {wanted}, got {static_shape(ty, name)}")
    return relay.TensorType(out, "float32")
