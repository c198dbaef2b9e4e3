"""The operator of linear layers, the same in Relax and Relay: its name, and how to read a call.

``sparsewino.linear``: data float32 [..., C], result float32 [..., K]. Weights are packed for one
kernel, the bias is completed by zeros to whole blocks. Its attributes are those of convolutions
with packed weights, without the tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..config import Epilogue
from ..config_linear import LinearPlan
from ..errors import ShapeError, in_context
from ..schedules.linear_build import linear_layout
from .operators import vector_unit

LINEAR = "sparsewino.linear"

Operand = TypeVar("Operand")


def linear_plan(attrs: Any) -> tuple[LinearPlan, Epilogue]:
    """The decisions that a call carries."""
    plan = LinearPlan.from_json(str(attrs["plan"]))
    return plan, Epilogue.from_json(str(attrs["epilogue"]))


def linear_output(
    attrs: Any,
    data: Operand,
    operands: Sequence[Operand],
    shape_of: Callable[[Operand, str], tuple[int, ...]],
) -> tuple[int, ...]:
    """The shape of what a call returns, its operands checked.

    Args:
        attrs: its attributes.
        data: its data.
        operands: what follows the packed weights: the bias, if its epilogue has one.
        shape_of: the shape of an operand, which messages call by the second argument.

    Raises:
        ShapeError: operands that do not fit the layer, which is named.
    """
    plan, epilogue = linear_plan(attrs)
    shape = plan.linear
    with in_context(f"layer {plan.name!r}"):
        extents = shape_of(data, "data")
        if not extents or (math.prod(extents[:-1]), extents[-1]) != (shape.n, shape.c):
            raise ShapeError(f"data must have {shape.n} rows of {shape.c} features, got {extents}")
        if len(operands) != epilogue.bias:
            raise ShapeError(f"takes {int(epilogue.bias)} operands after the weights")
        padded = linear_layout(plan, *vector_unit(attrs)).padded_k
        if epilogue.bias and shape_of(operands[0], "bias") != (padded,):
            raise ShapeError(f"bias must be [{padded}], got {shape_of(operands[0], 'bias')}")
    return (*extents[:-1], shape.k)
