"""Lower the operators to PrimFuncs; LegalizeOps of any pipeline calls these.

``winograd_conv2d`` gets its dense meaning in TE: plain and slow, right in any pipeline and for
weights that are no constants. The operators with packed weights get the kernels from schedules/.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from .._compat import IS_SCHEDULED, tensor_dtype
from ..config import ConvShape
from ..cook_toom import CookToom
from ..errors import in_context
from ..schedules.build import build_conv
from .ops import sparse_plan, winograd_algorithm, winograd_shape

# TVM's pattern kind of a function that fusion must leave alone.
_OPAQUE = 8


def legalize_winograd_conv2d(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``winograd_conv2d`` as four TE stages: input transform, product, output transform, bias."""
    algorithm, shape = winograd_algorithm(call), winograd_shape(call)
    bt, _, at = algorithm.arrays(np.float32)
    return builder.call_te(
        partial(_dense_meaning, shape=shape, algorithm=algorithm),
        *call.args,
        bt=relax.const(bt),
        at=relax.const(at),
        primfunc_name_hint="winograd_conv2d",
    )


def _dense_meaning(
    data: te.Tensor,
    weight: te.Tensor,
    bias: te.Tensor | None = None,
    *,
    bt: te.Tensor,
    at: te.Tensor,
    shape: ConvShape,
    algorithm: CookToom,
) -> te.Tensor:
    m, alpha = algorithm.m, algorithm.alpha
    tiles = (-(-shape.oh // m), -(-shape.ow // m))
    padded = _padded(data, shape, (tiles[0] * m + alpha - m, tiles[1] * m + alpha - m))
    a, b = te.reduce_axis((0, alpha), "a"), te.reduce_axis((0, alpha), "b")
    transformed = te.compute(
        (alpha, alpha, shape.n, shape.c, *tiles),
        lambda i, j, n, c, y, x: te.sum(
            bt[i, a] * bt[j, b] * padded[n, c, y * m + a, x * m + b], axis=[a, b]
        ),
        name="input_transform",
    )
    per_group, out_per_group = shape.c // shape.groups, shape.k // shape.groups
    channel = te.reduce_axis((0, per_group), "channel")
    product = te.compute(
        (alpha, alpha, shape.n, shape.k, *tiles),
        lambda i, j, n, k, y, x: te.sum(
            weight[i * alpha + j, k, channel]
            * transformed[i, j, n, k // out_per_group * per_group + channel, y, x],
            axis=[channel],
        ),
        name="product",
    )
    i, j = te.reduce_axis((0, alpha), "i"), te.reduce_axis((0, alpha), "j")
    output = te.compute(
        (shape.n, shape.k, shape.oh, shape.ow),
        lambda n, k, y, x: te.sum(
            at[y % m, i] * at[x % m, j] * product[i, j, n, k, y // m, x // m], axis=[i, j]
        ),
        name="output_transform",
    )
    if bias is None:
        return output
    return te.compute(
        output.shape, lambda n, k, y, x: output[n, k, y, x] + bias[k], name="add_bias"
    )


def _padded(data: te.Tensor, shape: ConvShape, size: tuple[int, int]) -> te.Tensor:
    """``data`` with zeros around it, rows and columns of every tile included."""
    top, left = shape.padding[:2]

    def value(n: Any, c: Any, y: Any, x: Any) -> Any:
        inside = tirx.all(y >= top, y < top + shape.h, x >= left, x < left + shape.w)
        return tirx.if_then_else(inside, data[n, c, y - top, x - left], tirx.const(0.0, "float32"))

    return te.compute((shape.n, shape.c, *size), value, name="pad")


def legalize_packed_conv2d(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``sparse_winograd_conv2d``, ``direct_conv2d`` or ``sparse_conv2d`` as a call of its kernel.

    The lengths of the packed arrays, which depend on where the zeros are, stay symbolic: layers
    that differ in nothing else share one kernel, which is compiled once.
    """
    plan, epilogue = sparse_plan(call)
    packed = call.args[1 : 1 + int(call.attrs["packed"])]
    specs = tuple(
        ((tirx.Var(f"length_{i}", "int64"),), tensor_dtype(array.ty))
        for i, array in enumerate(packed)
    )
    with in_context(f"layer {plan.name!r}"):
        kernel = build_conv(
            plan, epilogue, specs, int(call.attrs["lanes"]), int(call.attrs["vector_registers"])
        )
    name = str(kernel.attrs["global_symbol"])
    kernel = kernel.with_attrs({"op_pattern": _OPAQUE, IS_SCHEDULED: True})
    function = builder.add_func(kernel.without_attr("global_symbol"), name)
    return relax.call_tir(function, list(call.args), call.ty)
