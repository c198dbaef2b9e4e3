"""Lower operators without kernels of their own where TVM's lowering cannot be made fast.

:func:`operator_legalizers` gives LegalizeOps what it takes: operator -> function. Each of them
leaves what it does not know (other dtypes, layouts, symbolic shapes) to TVM's own lowering.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from tvm import relax, te, tirx, topi

from .._compat import constant, constant_array
from ..errors import ShapeError
from ..schedules import operators as rest
from ..schedules import vector_math
from ..schedules.pool_rows import build_pool, fits, pool_table
from ..schedules.pooling import Pool, average_pool, max_pool
from .concat_in_place import legalize_concat
from .kernel_calls import add_kernel
from .legalize_resize import adaptive_pool, resize
from .ops import static_shape

Legalizer = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]

_UNARY = {
    "relax.exp": vector_math.exp,
    "relax.sigmoid": vector_math.sigmoid,
    "relax.tanh": vector_math.tanh,
    "relax.erf": vector_math.erf,
    "relax.nn.silu": rest.silu,
    "relax.nn.gelu": rest.gelu,
}


def operator_legalizers(lanes: int) -> dict[str, Legalizer]:
    """Operator -> how it is lowered for vectors of ``lanes`` lanes."""
    ours: dict[str, Callable[[relax.BlockBuilder, relax.Call], relax.Expr | None]] = {
        name: partial(_unary, function) for name, function in _UNARY.items()
    }
    ours["relax.power"] = _power
    ours["relax.nn.softmax"] = partial(_softmax, lanes, False)
    ours["relax.nn.log_softmax"] = partial(_softmax, lanes, True)
    ours["relax.mean"] = partial(_reduction, lanes, rest.SUM, True)
    ours["relax.sum"] = partial(_reduction, lanes, rest.SUM, False)
    ours["relax.max"] = partial(_reduction, lanes, rest.MAX, False)
    ours["relax.nn.max_pool2d"] = partial(_pool, lanes, "max")
    ours["relax.nn.avg_pool2d"] = partial(_pool, lanes, "mean")
    ours["relax.nn.layer_norm"] = partial(_layer_norm, lanes)
    ours["relax.nn.adaptive_avg_pool2d"] = partial(adaptive_pool, lanes)
    ours["relax.image.resize2d"] = partial(resize, lanes)
    legalizers = {name: _or_tvms(name, make) for name, make in ours.items()}
    return {
        **legalizers,
        "relax.concat": legalize_concat,
        "relax.take": _take,
        "relax.index_tensor": _index_tensor,
    }


def _or_tvms(name: str, make: Callable[..., relax.Expr | None]) -> Legalizer:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        made = make(builder, call) if _shape(call.args[0]) else None
        return call.op.get_attr("FLegalize")(builder, call) if made is None else made

    return legalize


def _shape(expr: relax.Expr) -> tuple[int, ...]:
    """The shape of a float32 tensor that is not empty, else ()."""
    try:
        shape = static_shape(expr, "data")
    except ShapeError:
        return ()
    return shape if math.prod(shape) else ()


def _hint(call: relax.Call) -> str:
    return call.op.name.split(".")[-1]


def _unary(function: Any, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return builder.call_te(rest.unary(function), call.args[0], primfunc_name_hint=_hint(call))


def _take(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Indices count from the end where they are negative, as frontends leave them, and no index
    reads memory outside of the tensor; TVM checks none unless it is told to.
    """
    if call.attrs.mode == "fast":
        call = relax.op.take(*call.args, axis=call.attrs.axis, mode="wrap")
    return call.op.get_attr("FLegalize")(builder, call)


def _index_tensor(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """As :func:`_take`, for several dimensions at once."""
    data, indices = call.args
    fields = [relax.TupleGetItem(indices, i) for i in range(len(indices.ty.fields))]

    def gather(data: te.Tensor, indices: list[te.Tensor]) -> te.Tensor:
        sizes = data.shape[: len(indices)]
        return topi.index_tensor(
            data, [_from_the_end(*p) for p in zip(indices, sizes, strict=True)]
        )

    return builder.call_te(
        gather, data, [builder.emit(f) for f in fields], primfunc_name_hint="index_tensor"
    )


def _from_the_end(index: te.Tensor, size: Any) -> te.Tensor:
    def wrapped(*at: Any) -> Any:
        return tirx.floormod(index(*at).astype("int64"), tirx.Cast("int64", size))

    return te.compute(index.shape, wrapped, name="wrapped")


_MOST_QUARTERS = 16  # of a power that is taken by products; the error grows with them


def _power(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr | None:
    """Powers that are one known number of quarters."""
    exponent = constant_array(call.args[1])
    if exponent is None or exponent.size != 1 or _shape(call) != _shape(call.args[0]):
        return None
    quarters = 4 * float(exponent.item())
    if not abs(quarters) <= _MOST_QUARTERS or quarters % 1:
        return None
    function = partial(vector_math.power, quarters=int(quarters))
    return builder.call_te(rest.unary(function), call.args[0], primfunc_name_hint=_hint(call))


def _softmax(
    lanes: int, log: bool, builder: relax.BlockBuilder, call: relax.Call
) -> relax.Expr | None:
    rank = len(_shape(call.args[0]))
    if int(call.attrs.axis) % rank != rank - 1:
        return _softmax_across(log, builder, call)
    return builder.call_te(
        partial(rest.softmax, lanes=lanes, log=log), call.args[0], primfunc_name_hint=_hint(call)
    )


def _softmax_across(log: bool, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return builder.call_te(
        partial(rest.softmax_across, axis=int(call.attrs.axis), log=log),
        call.args[0],
        primfunc_name_hint=_hint(call),
    )


def _reduction(
    lanes: int, combine: rest.Combine, mean: bool, builder: relax.BlockBuilder, call: relax.Call
) -> relax.Expr | None:
    """Reductions over the last axes; those over others keep lanes busy as they are."""
    shape = _shape(call.args[0])
    rank, given = len(shape), call.attrs.axis
    axes = sorted(range(rank) if given is None else {int(axis) % rank for axis in given})
    if not axes or axes != list(range(rank - len(axes), rank)):
        return None
    return builder.call_te(
        partial(
            rest.trailing,
            axes=len(axes),
            combine=combine,
            lanes=lanes,
            keepdims=bool(call.attrs.keepdims),
            scale=1.0 / math.prod(shape[axis] for axis in axes) if mean else 1.0,
        ),
        call.args[0],
        primfunc_name_hint=_hint(call),
    )


def _layer_norm(lanes: int, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr | None:
    rank, attrs = len(_shape(call.args[0])), call.attrs
    axes = [int(axis) % rank for axis in attrs.axes]
    if axes != list(range(rank - len(axes), rank)) or not (attrs.center and attrs.scale):
        return None
    return builder.call_te(
        partial(rest.layer_norm, epsilon=float(attrs.epsilon), lanes=lanes),
        *call.args,
        primfunc_name_hint=_hint(call),
    )


def _pool(
    lanes: int, kind: str, builder: relax.BlockBuilder, call: relax.Call
) -> relax.Expr | None:
    attrs, shape = call.attrs, _shape(call.args[0])
    if attrs.layout != "NCHW" or attrs.out_layout != "NCHW":
        return None
    window, stride, dilation, padding = (
        tuple(int(n) for n in values)
        for values in (attrs.pool_size, attrs.strides, attrs.dilation, attrs.padding)
    )
    if kind == "mean" and dilation != (1, 1):
        return None
    output = tuple(int(n) for n in call.ty.shape.values)[2:]
    pool = Pool(window, stride, dilation, padding, output, bool(attrs.count_include_pad))
    if fits(pool, shape[3], lanes):
        kernel = add_kernel(builder, build_pool(shape, kind, pool, lanes))
        table = constant(pool_table(kind, pool, shape[2:]))
        return relax.call_tir(kernel, [call.args[0], table], call.ty)
    function = max_pool if kind == "max" else average_pool
    return builder.call_te(
        partial(function, pool=pool), call.args[0], primfunc_name_hint=_hint(call)
    )
