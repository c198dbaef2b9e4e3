"""Which operators keep the rows of a batch independent, and where their results have the batch.

A network may run a batch in pieces, and fill a piece up with rows of zeros, only when every row of
every output depends on that row of the inputs alone. That holds for a network if it holds for each
of its operators: each rule here gives, from the axis that is the batch in every operand, the axis
that is the batch in the result, or says that rows meet. An operator without a rule is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax

from .operators import WINOGRAD


class RowsMeet(Exception):
    """Rows of the batch do not stay apart, or that cannot be shown.

    The text says why; the name of an operator is to be put before it.
    """


@dataclass(frozen=True)
class Operand:
    """A tensor with the batch marked.

    Attributes:
        shape: its extents, None for the batch.
        axis: which one is the batch, None if none is.
    """

    shape: tuple[int | None, ...]
    axis: int | None

    @property
    def from_right(self) -> int | None:
        """The batch axis counted from the right, 1 for the last; None without a batch."""
        return None if self.axis is None else len(self.shape) - self.axis


Rule = Callable[[Any, Sequence[Operand], Operand], int | None]


def batch_axis(call: relax.Call, operands: Sequence[Operand], result: Operand) -> None:
    """Check that ``call`` keeps rows apart and that its result has the batch where it must be.

    Args:
        call: of an operator.
        operands: its tensors, the fields of tuples one by one.
        result: its result, as its type tells.

    Raises:
        RowsMeet: it does not.
    """
    if all(operand.axis is None for operand in operands) and result.axis is None:
        return
    if RULES[known_operator(call)](call, operands, result) != result.axis:
        raise RowsMeet("takes the batch apart or moves it")


def known_operator(call: relax.Call) -> str:
    """The name of an operator that has a rule.

    Raises:
        RowsMeet: it has none.
    """
    name = operator_name(call)
    if name not in RULES:
        raise RowsMeet("is not known to keep the rows of a batch apart")
    return name


def operator_name(call: relax.Call) -> str:
    """What messages call the operator or function that is called."""
    return getattr(call.op, "name", "a function")


# ---- rules -------------------------------------------------------------------------------------


def _elementwise(_call: Any, operands: Sequence[Operand], result: Operand) -> int:
    """Operands aligned at the right; what has no batch is the same for all rows."""
    places = {o.from_right for o in operands if o.axis is not None} or {result.from_right}
    if len(places) != 1:
        raise RowsMeet("has the batch in several axes")
    (place,) = places
    for operand in operands:
        if operand.axis is None and len(operand.shape) >= place and operand.shape[-place] != 1:
            raise RowsMeet("has an operand with rows of its own")
    return len(result.shape) - place


def _images(call: Any, operands: Sequence[Operand], _result: Operand) -> int:
    """Data that begins with the batch, and weights without one."""
    data, *weights = operands
    attrs = call.attrs
    layouts = [str(getattr(attrs, name, "N")) for name in ("layout", "data_layout", "out_layout")]
    if data.axis != 0 or any(not layout.startswith("N") for layout in layouts):
        raise RowsMeet("has the batch in another axis than the first")
    _without_batch(weights)
    return 0


def _keeps(call: Any, operands: Sequence[Operand], _result: Operand) -> int:
    """The shape stays, rows meet along the axes that the attributes name."""
    data, *others = operands
    _without_batch(others)
    if getattr(call.attrs, "training", False):
        raise RowsMeet("is in training mode")
    names = [name for name in ("axis", "axes", "channel_axis") if hasattr(call.attrs, name)]
    for name in names:
        _apart(data, _axes(getattr(call.attrs, name), data))
    return _batch_of(data)


def _reduces(call: Any, operands: Sequence[Operand], _result: Operand) -> int:
    (data,) = operands
    axes = _axes(call.attrs.axis, data)
    _apart(data, axes)
    if call.attrs.keepdims:
        return _batch_of(data)
    return _batch_of(data) - sum(axis < _batch_of(data) for axis in axes)


def _joins(call: Any, operands: Sequence[Operand], _result: Operand) -> int:
    axes = {operand.axis for operand in operands}
    if len(axes) != 1:
        raise RowsMeet("joins what has the batch and what has not")
    _apart(operands[0], _axes(call.attrs.axis, operands[0]))
    return _batch_of(operands[0])


def _slices(call: Any, operands: Sequence[Operand], _result: Operand) -> int:
    """A whole range in order is no slice of the batch; whether it is whole shows in the result."""
    data = operands[0]
    axes, begins, _, *strides = map(_values, call.args[1:])
    for number, axis in enumerate(axes):
        ordered = not strides or int(strides[0][number]) == 1
        if int(axis) % len(data.shape) == data.axis and not (int(begins[number]) == 0 and ordered):
            raise RowsMeet("takes some rows of the batch")
    return _batch_of(data)


def _reshapes(_call: Any, operands: Sequence[Operand], result: Operand) -> int:
    """Elements keep their order, so the batch is where as many elements come before it."""
    (data,) = operands
    axis = -1 if result.axis is None else result.axis
    if math.prod(data.shape[: _batch_of(data)]) != math.prod(result.shape[: max(axis, 0)]):
        raise RowsMeet("mixes the batch with another axis")
    return axis


def _fills(_call: Any, operands: Sequence[Operand], result: Operand) -> int | None:
    """One value everywhere."""
    _without_batch(operands)
    return result.axis


def _permutes(call: Any, operands: Sequence[Operand], _result: Operand) -> int:
    (data,) = operands
    order = call.attrs.axes
    axes = range(len(data.shape))[::-1] if order is None else _axes(order, data)
    return list(axes).index(_batch_of(data))


def _multiplies(_call: Any, operands: Sequence[Operand], result: Operand) -> int:
    """A product of matrices, leading dimensions aligned at the right."""
    left, right = operands
    if min(len(left.shape), len(right.shape)) < 2:
        raise RowsMeet("multiplies a vector")
    if left.from_right == 1 or right.from_right == 2:
        raise RowsMeet("sums over the batch")
    both = left.axis is not None and right.axis is not None
    if both and left.from_right != right.from_right:
        raise RowsMeet("has the batch in several axes")
    place = left.from_right if right.axis is None else right.from_right
    return len(result.shape) - place


def _takes(call: Any, operands: Sequence[Operand], _result: Operand) -> int:
    """``data`` indexed along an axis: the batch may be in the data or in the indices."""
    data, indices = operands
    if call.attrs.axis is None or (data.axis is not None and indices.axis is not None):
        raise RowsMeet("takes elements from any row")
    axis = int(call.attrs.axis) % len(data.shape)
    if data.axis is None:
        return axis + _batch_of(indices)
    _apart(data, [axis])
    return data.axis + (len(indices.shape) - 1 if axis < data.axis else 0)


# ---- parts of rules ----------------------------------------------------------------------------


def _batch_of(operand: Operand) -> int:
    if operand.axis is None:
        raise RowsMeet("has its data without a batch")
    return operand.axis


def _without_batch(operands: Sequence[Operand]) -> None:
    if any(operand.axis is not None for operand in operands):
        raise RowsMeet("has weights that depend on the input")


def _apart(data: Operand, axes: Sequence[int]) -> None:
    if _batch_of(data) in axes:
        raise RowsMeet("works along the batch")


def _axes(value: Any, data: Operand) -> list[int]:
    """An axis, several, or None for all, counted from the left."""
    if value is None:
        return list(range(len(data.shape)))
    values = [value] if isinstance(value, int) or not hasattr(value, "__iter__") else value
    return [int(axis) % len(data.shape) for axis in values]


def _values(arg: Any) -> Sequence[Any]:
    return [getattr(v, "value", v) for v in getattr(arg, "fields", getattr(arg, "values", arg))]


# ---- the table ---------------------------------------------------------------------------------

# Operators that take a shape, which may hold the batch.
SHAPED = ("relax.reshape", "relax.broadcast_to", "relax.full", "relax.ones", "relax.zeros")
_ELEMENTWISE = (
    *("abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "cos", "cosh"),
    *("erf", "exp", "floor", "isfinite", "isinf", "isnan", "log", "negative", "round", "rsqrt"),
    *("sigmoid", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "trunc", "clip", "astype"),
    *("add", "divide", "ewise_fma", "floor_divide", "floor_mod", "log_add_exp", "maximum"),
    *("minimum", "mod", "multiply", "power", "subtract", "where", "broadcast_to"),
    *("equal", "greater", "greater_equal", "less", "less_equal", "not_equal"),
    *("bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "left_shift", "right_shift"),
    *("logical_and", "logical_not", "logical_or", "logical_xor"),
    *("full_like", "ones_like", "zeros_like"),
    *("nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu", "nn.selu", "nn.silu", "nn.softplus"),
)
_SIZES = ("1d", "2d", "3d")
_IMAGES = (
    *(f"nn.{kind}_pool{size}" for kind in ("avg", "max", "adaptive_avg") for size in _SIZES),
    *(f"nn.conv{size}{kind}" for kind in ("", "_transpose") for size in _SIZES),
    *("image.resize2d", "image.resize3d", "nn.pixel_shuffle"),
)
_KEEPS = (
    *("nn.batch_norm", "nn.group_norm", "nn.instance_norm", "nn.layer_norm", "nn.rms_norm"),
    *("nn.softmax", "nn.log_softmax", "nn.prelu", "nn.pad", "cumsum", "cumprod", "flip"),
    *("sort", "argsort", "topk"),
)
_REDUCES = ("sum", "mean", "max", "min", "prod", "std", "variance", "argmax", "argmin", "median")
_RESHAPES = ("reshape", "expand_dims", "squeeze", "flatten", "nn.batch_flatten")

RULES: dict[str, Rule] = {
    WINOGRAD: _images,
    **{
        f"relax.{name}": rule
        for names, rule in (
            (_ELEMENTWISE, _elementwise),
            (_IMAGES, _images),
            (_KEEPS, _keeps),
            (_REDUCES, _reduces),
            (_RESHAPES, _reshapes),
            (("concat", "split"), _joins),
            (("full", "ones", "zeros"), _fills),
            (("matmul",), _multiplies),
            (("permute_dims",), _permutes),
            (("strided_slice",), _slices),
            (("take",), _takes),
        )
        for name in names
    },
}
