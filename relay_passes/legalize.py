"""Lower the operators to PrimFuncs; LegalizeOps of any pipeline calls these.

``winograd_conv2d`` gets its dense meaning in TE: plain and slow, right in any pipeline and for
weights that are no constants. The operators with packed weights get the kernels from schedules/.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from tvm import relax, tirx

from .._compat import IS_SCHEDULED, tensor_dtype
from ..errors import in_context
from ..schedules.build import build_conv
from .dense_meaning import winograd_stages
from .operators import OPAQUE, packed_plan, winograd_algorithm
from .ops import winograd_shape


def legalize_winograd_conv2d(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``winograd_conv2d`` in TE: input transform, perhaps ReLU, product, output transform, bias."""
    algorithm, shape = winograd_algorithm(call.attrs), winograd_shape(call)
    bt, _, at = algorithm.arrays(np.float32)
    return builder.call_te(
        partial(winograd_stages, shape=shape, algorithm=algorithm, relu=bool(call.attrs["relu"])),
        *call.args,
        bt=relax.const(bt),
        at=relax.const(at),
        primfunc_name_hint="winograd_conv2d",
    )


def legalize_packed_conv2d(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``sparse_winograd_conv2d``, ``direct_conv2d`` or ``sparse_conv2d`` as a call of its kernel.

    The lengths of the packed arrays, which depend on where the zeros are, stay symbolic: layers
    that differ in nothing else share one kernel, which is compiled once.
    """
    plan, epilogue = packed_plan(call.attrs)
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
    kernel = kernel.with_attrs({"op_pattern": OPAQUE, IS_SCHEDULED: True})
    function = builder.add_func(kernel.without_attr("global_symbol"), name)
    return relax.call_tir(function, list(call.args), call.ty)
