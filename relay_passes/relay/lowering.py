"""What the operators compute, in TE: the kernels of schedules/, and the plain meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import te

from ..._compat import tir
from ...errors import in_context
from ...schedules.build import build_conv
from ..dense_meaning import winograd_stages
from ..operators import packed_plan, vector_unit, winograd_algorithm, winograd_shape


def kernel(attrs: Any, inputs: Sequence[te.Tensor]) -> list[te.Tensor]:
    """A call with packed weights: its kernel as one extern stage."""
    plan, epilogue = packed_plan(attrs)
    packed = inputs[1 : 1 + int(attrs["packed"])]
    specs = tuple((tuple(int(d) for d in t.shape), str(t.dtype)) for t in packed)
    with in_context(f"layer {plan.name!r}"):
        func = build_conv(plan, epilogue, specs, *vector_unit(attrs))

    # TE wants buffers with the very shapes of its tensors.
    buffers = [tir.decl_buffer(t.shape, t.dtype, t.op.name) for t in inputs]
    output = func.buffer_map[func.params[-1]]
    body = func.specialize(dict(zip(func.params, [*buffers, output], strict=True))).body
    return [
        te.extern(
            [output.shape],
            list(inputs),
            lambda _inputs, _outputs: body,
            name=str(func.attrs["global_symbol"]),
            dtype="float32",
            in_buffers=buffers,
            out_buffers=[output],
        )
    ]


def dense_meaning(attrs: Any, inputs: Sequence[te.Tensor]) -> list[te.Tensor]:
    """``winograd_conv2d`` as TE stages: input transform, product, output transform."""
    data, weight = inputs
    algorithm = winograd_algorithm(attrs)
    bt, _, at = algorithm.arrays(np.float32)
    shape = winograd_shape(attrs, *(tuple(int(d) for d in t.shape) for t in inputs))
    tables = {"bt": _table(bt, "bt"), "at": _table(at, "at")}
    return [
        winograd_stages(
            data, weight, **tables, shape=shape, algorithm=algorithm, relu=bool(attrs["relu"])
        )
    ]


def _table(values: np.ndarray, name: str) -> te.Tensor:
    """A small matrix of known numbers."""

    def value(i: Any, j: Any) -> Any:
        result = tir.const(0.0, "float32")
        for (row, column), number in np.ndenumerate(values):
            here = tir.all(i == row, j == column)
            result = tir.Select(here, tir.const(float(number), "float32"), result)
        return result

    return te.compute(values.shape, value, name=name)
