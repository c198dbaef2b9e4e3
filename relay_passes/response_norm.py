"""Recognise local response normalisation, which frontends write as a chain of operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from .._compat import constant
from ..errors import ShapeError
from ..schedules.response_norm import LEAST, MOST_CHANNELS, ResponseNorm, build_response_norm
from .bindings import Bindings, is_graph, replaced
from .kernel_calls import add_kernel
from .ops import is_call_to, static_shape

_POOL = "relax.nn.avg_pool3d"
_RESHAPES = ("relax.expand_dims", "relax.squeeze", "relax.reshape")


@tvm.transform.module_pass(opt_level=0, name="JoinResponseNorms")
class JoinResponseNorms:
    """Compute ``x / (k + a * means over channels of x^2)^b`` in one kernel.

    Means are an average pooling in three dimensions, of which the middle one is channels, with
    zeros around them, which count.

    Checked: k, a and b are numbers with k >= 1e-30, a >= 0 and b a quarter, a half or three
    quarters, and at most 16 channels are summed; others are lowered operator by operator.

    Args:
        lanes: float32 lanes of the target's vector registers.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod`` that describes a network."""
        builder = relax.BlockBuilder(mod)
        for name, func in mod.functions.items():
            if not is_graph(func):
                continue
            bindings = Bindings(func)
            found = {b.var: match for b in bindings.order if (match := _match(b.value, bindings))}
            values = {}
            for var, (x, norm) in found.items():
                shape = static_shape(x, "data")
                kernel = add_kernel(builder, build_response_norm(shape, norm, self.lanes))
                numbers = constant(np.array([norm.scale, norm.offset], np.float32))
                values[var] = relax.call_tir(kernel, [x, numbers], var.ty)
            if values:
                builder.update_func(name, replaced(func, values, set()))
        return builder.get()


def _match(value: relax.Expr, bindings: Bindings) -> tuple[relax.Expr, ResponseNorm] | None:
    """What is normalised and how, if ``value`` is the last operator of such a chain."""
    if not is_call_to(value, "relax.divide"):
        return None
    x, divisor = value.args[0], bindings.value(value.args[1])
    power = _with_number(divisor, "relax.power", bindings)
    offset = power and _with_number(power[0], "relax.add", bindings)
    scale = offset and _with_number(offset[0], "relax.multiply", bindings)
    sums = scale and _channel_sums(scale[0], x, bindings)
    if not sums:
        return None
    before, after = sums
    size, quarters = before + after + 1, 4 * power[1]
    norm = ResponseNorm(before, after, scale[1] / size, offset[1], int(quarters))
    fits = quarters in (1, 2, 3) and norm.offset >= LEAST and norm.scale >= 0
    return (x, norm) if fits and size <= MOST_CHANNELS else None


def _with_number(
    value: relax.Expr, name: str, bindings: Bindings
) -> tuple[relax.Expr, float] | None:
    """The operands of a call of ``name`` on a tensor and one number, the tensor's value first."""
    if not is_call_to(value, name):
        return None
    sides = [(value.args[0], value.args[1])]
    if name != "relax.power":
        sides.append((value.args[1], value.args[0]))
    for tensor, other in sides:
        number = bindings.constant(other)
        if number is not None and number.size == 1 and _shape(tensor) == _shape(value):
            return bindings.value(tensor), float(number.item())
    return None


def _channel_sums(value: relax.Expr, x: relax.Expr, bindings: Bindings) -> tuple[int, int] | None:
    """Channels before and after a number's own that its mean is of; None for another value."""
    shape = _shape(x)
    pool = _without_reshapes(value, bindings)
    if not is_call_to(pool, _POOL) or len(shape) < 3 or _shape(value) != shape:
        return None
    attrs = pool.attrs
    (window, *others), padding = _whole(attrs.pool_size), _whole(attrs.padding)
    if (
        (attrs.layout, attrs.out_layout, attrs.ceil_mode) != ("NCDHW", "NCDHW", False)
        or not (attrs.count_include_pad or not any(padding))
        or {*others, *_whole(attrs.strides), *_whole(attrs.dilation)} != {1}
    ):
        return None
    source = bindings.value(pool.args[0])
    borders = [0] * 10
    if is_call_to(source, "relax.nn.pad"):
        if source.attrs.pad_mode != "constant" or float(source.attrs.pad_value) != 0:
            return None
        borders, source = _whole(source.attrs.pad_width), bindings.value(source.args[0])
    before, after = borders[4] + padding[0], borders[5] + padding[3]
    elsewhere = [*borders[:4], *borders[6:], *padding[1:3], *padding[4:]]
    planes = _shape(source)
    square = _without_reshapes(source, bindings)
    if (
        before + after + 1 != window
        or any(elsewhere)
        or planes[:3] != (shape[0], 1, shape[1])
        or _shape(square) != shape
        or not _is_square(square, x)
    ):
        return None
    return before, after


def _without_reshapes(value: relax.Expr, bindings: Bindings) -> relax.Expr:
    while any(is_call_to(value, name) for name in _RESHAPES):
        value = bindings.value(value.args[0])
    return value


def _is_square(value: relax.Expr, x: relax.Expr) -> bool:
    if is_call_to(value, "relax.square"):
        return value.args[0].same_as(x)
    return is_call_to(value, "relax.multiply") and all(arg.same_as(x) for arg in value.args)


def _shape(expr: relax.Expr) -> tuple[int, ...]:
    """The shape of a float32 tensor, () where it is not known."""
    try:
        return static_shape(expr, "data")
    except ShapeError:
        return ()


def _whole(numbers: Sequence[object]) -> list[int]:
    return [int(number) for number in numbers]
