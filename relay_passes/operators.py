"""The convolution operators, the same in Relax and Relay: names, attributes, and how to read them.

``sparsewino.winograd_conv2d`` is what frontends produce: any engine could run it.
``sparsewino.sparse_winograd_conv2d`` is the same function with weights packed for one kernel.
``sparsewino.direct_conv2d`` and ``sparsewino.sparse_conv2d`` have the same operands and attributes
and convolve with packed spatial weights, without transforms; the second leaves out those that are
zero. Winograd convolutions have stride 1 and dilation 1, the others any; all are NCHW float32.
How a call is made and which type it has, each line of TVM says in an ``ops.py`` of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .._compat import dict_attrs
from ..config import ConvShape, Epilogue, LayerPlan
from ..config_linear import LinearPlan
from ..cook_toom import CookToom, cook_toom, points_from_text
from ..errors import ShapeError, in_context
from ..geometry_pooling import output_shape

WINOGRAD = "sparsewino.winograd_conv2d"
SPARSE = "sparsewino.sparse_winograd_conv2d"
DIRECT = "sparsewino.direct_conv2d"
SPARSE_DIRECT = "sparsewino.sparse_conv2d"
PACKED = (SPARSE, DIRECT, SPARSE_DIRECT)
_BY_ALGORITHM = {
    "sparse_winograd": SPARSE,
    "dense_winograd": SPARSE,
    "dense_direct": DIRECT,
    "sparse_direct": SPARSE_DIRECT,
}
# TVM's pattern kind of an operator or function that fusion must leave alone.
OPAQUE = 8

Operand = TypeVar("Operand")


def packed_operator(algorithm: str) -> str:
    """The operator that runs what a plan calls ``algorithm``."""
    return _BY_ALGORITHM[algorithm]


# ---- attributes --------------------------------------------------------------------------------


def winograd_attrs(
    *,
    m: int,
    r: int,
    points: Sequence[str],
    padding: Sequence[int],
    groups: int = 1,
    relu: bool = False,
) -> Any:
    """The attributes of ``winograd_conv2d``.

    Args:
        m, r, points: the algorithm; points as text, "inf" last.
        padding: (top, left, bottom, right).
        groups: channel groups.
        relu: whether negative transformed inputs count as zero (a Winograd-ReLU layer).
    """
    return dict_attrs(
        m=m,
        r=r,
        points=list(points),
        padding=[int(p) for p in padding],
        groups=groups,
        relu=int(relu),
    )


def packed_attrs(
    plan: LayerPlan | LinearPlan,
    epilogue: Epilogue,
    packed: int,
    lanes: int,
    vector_registers: int,
) -> Any:
    """The attributes of an operator with packed weights.

    Args:
        plan: what the planner decided for the layer.
        epilogue: what the kernel does at its end.
        packed: how many arrays the packed weights are.
        lanes, vector_registers: the vector unit that the weights were packed for.
    """
    tile = {"m": plan.m} if isinstance(plan, LayerPlan) else {}
    return dict_attrs(
        layer=plan.name,
        packed=packed,
        lanes=lanes,
        vector_registers=vector_registers,
        plan=json.dumps(plan.to_json()),
        epilogue=json.dumps(epilogue.to_json()),
        **tile,
    )


# ---- reading them ------------------------------------------------------------------------------


def winograd_algorithm(attrs: Any) -> CookToom:
    """The algorithm that the attributes of ``winograd_conv2d`` name.

    Raises:
        ConfigError: sizes or points that make no algorithm.
    """
    points = points_from_text([str(p) for p in attrs["points"]])
    return cook_toom(int(attrs["m"]), int(attrs["r"]), points)


def winograd_shape(attrs: Any, data: tuple[int, ...], weight: tuple[int, ...]) -> ConvShape:
    """The shape of a ``winograd_conv2d`` of operands with these shapes, checked.

    Raises:
        ConfigError: attributes that make no algorithm.
        ShapeError: operands that do not fit each other or the attributes.
    """
    algorithm = winograd_algorithm(attrs)
    groups, padding = int(attrs["groups"]), tuple(int(p) for p in attrs["padding"])
    if len(data) != 4:
        raise ShapeError(f"data must be [N, C, H, W], got {data}")
    if len(weight) != 3 or weight[0] != algorithm.coordinates:
        raise ShapeError(f"{algorithm} needs weights [{algorithm.coordinates}, K, C], got {weight}")
    if len(padding) != 4 or min(padding) < 0:
        raise ShapeError(f"padding must be 4 numbers >= 0, got {padding}")
    (n, c, h, w), (_, k, per_group) = data, weight
    if groups < 1 or c != per_group * groups or k % groups:
        raise ShapeError(
            f"{c} input and {k} output channels do not fit {groups} groups of {per_group}"
        )
    shape = ConvShape(n, c, h, w, k, algorithm.r, padding, groups)
    if min(n, k) < 1 or shape.oh < 1 or shape.ow < 1:
        raise ShapeError(f"a map {h}x{w} with padding {padding} is smaller than the filter")
    return shape


def packed_plan(attrs: Any) -> tuple[LayerPlan, Epilogue]:
    """The decisions that a convolution with packed weights carries."""
    plan = LayerPlan.from_json(str(attrs["plan"]))
    return plan, Epilogue.from_json(str(attrs["epilogue"]))


def vector_unit(attrs: Any) -> tuple[int, int]:
    """Lanes and registers of the vector unit that the weights were packed for."""
    return int(attrs["lanes"]), int(attrs["vector_registers"])


def packed_output(
    attrs: Any,
    data: Operand,
    operands: Sequence[Operand],
    shape_of: Callable[[Operand, str], tuple[int, ...]],
) -> tuple[int, ...]:
    """The shape of what a convolution with packed weights returns, its operands checked.

    Args:
        attrs: its attributes.
        data: its data.
        operands: what follows the packed weights: bias [K], PReLU slope [K], residual
            [N, K, OH, OW], those that its epilogue has.
        shape_of: the shape of an operand, which messages call by the second argument.

    Raises:
        ShapeError: operands that do not fit the layer, which is named.
    """
    plan, epilogue = packed_plan(attrs)
    shape = plan.conv
    out = (shape.n, shape.k, shape.oh, shape.ow)
    expected: list[tuple[str, tuple[int, ...]]] = []
    if epilogue.bias:
        expected.append(("bias", (shape.k,)))
    if epilogue.activation == "prelu":
        expected.append(("slope", (shape.k,)))
    if epilogue.residual:
        expected.append(("residual", out))
    with in_context(f"layer {plan.name!r}"):
        if len(operands) != len(expected):
            names = [name for name, _ in expected]
            raise ShapeError(f"takes the operands {names} after the weights, got {len(operands)}")
        expected.append(("data", (shape.n, shape.c, shape.h, shape.w)))
        for (name, wanted), operand in zip(expected, [*operands, data], strict=True):
            got = shape_of(operand, name)
            if got != wanted:
                raise ShapeError(f"{name} must be {wanted}, got {got}")
    return output_shape(shape, epilogue)
