"""Lower our operators to PrimFuncs; LegalizeOps of any pipeline calls these functions.

``winograd_conv2d`` gets its dense meaning in TE: plain and slow, right in any pipeline and for
weights that are no constants. The operators with packed weights get the kernels from schedules/.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from tvm import relax, tirx

from .._compat import constant
from ..schedules.build import adds_in_place, build_conv
from .add_in_place import ADDS
from .dense_meaning import winograd_stages
from .kernel_calls import Specs, call_kernel
from .operators import packed_plan, vector_unit, winograd_algorithm
from .ops import winograd_shape


def legalize_winograd_conv2d(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``winograd_conv2d`` in TE: input transform, perhaps ReLU, product, output transform, bias."""
    algorithm, shape = winograd_algorithm(call.attrs), winograd_shape(call)
    bt, _, at = algorithm.arrays(np.float32)
    return builder.call_te(
        partial(winograd_stages, shape=shape, algorithm=algorithm, relu=bool(call.attrs["relu"])),
        *call.args,
        bt=constant(bt),
        at=constant(at),
        primfunc_name_hint="winograd_conv2d",
    )


def legalize_packed_conv2d(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``sparse_winograd_conv2d``, ``direct_conv2d`` or ``sparse_conv2d`` as a call."""
    plan, epilogue = packed_plan(call.attrs)
    unit = vector_unit(call.attrs)

    def build(specs: Specs) -> tirx.PrimFunc:
        kernel = build_conv(plan, epilogue, specs, *unit)
        return kernel.with_attr(ADDS, True) if adds_in_place(plan, epilogue, unit[0]) else kernel

    return call_kernel(builder, call, build)
