"""The three stages of a Winograd convolution, panel by panel, and what of them runs in parallel.

Neither transformed inputs nor products ever exist for the whole layer: a thread keeps the inputs of
one panel and the products of one block of output channels. No output is ever summed up by several
threads, so results do not depend on their number.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import LayerPlan
from ..cook_toom import cook_toom
from ..geometry import KernelLayout, ceil_div
from .dense_gemm import emit_dense_gemm
from .epilogue import EpilogueOperands
from .input_transform import emit_input_transform
from .output_transform import emit_output_transform
from .sparse_gemm import emit_sparse_gemm
from .structured_gemm import emit_structured_gemm


def emit_fused(
    plan: LayerPlan,
    layout: KernelLayout,
    vector_registers: int,
    data: tir.Buffer,
    weights: list[tir.Buffer],
    epilogue: EpilogueOperands,
    output: tir.Buffer,
) -> None:
    """Emit the kernel whose panels run in parallel and share nothing.

    Args:
        plan: what the planner decided.
        layout: memory layout.
        vector_registers: vector registers of the target.
        data: buffer [N, C, H, W].
        weights: the packed arrays.
        epilogue: what follows the convolution, with its buffers.
        output: buffer [N, K, OH, OW].
    """
    with (
        T.parallel(0, layout.panels.count) as panel,
        tvm_ir.scratch((layout.v.size,)) as v,
        tvm_ir.scratch((layout.product.size,)) as product,
    ):
        channels = (0, plan.conv.c)
        _emit_input(data, v, plan, layout, panel, channels)
        with T.serial(0, layout.k_blocks) as block:
            _emit_product(weights, v, product, block, plan, layout, vector_registers)
            _emit_output(product, output, block, panel, plan, layout, epilogue)


def emit_split(
    plan: LayerPlan,
    layout: KernelLayout,
    vector_registers: int,
    data: tir.Buffer,
    weights: list[tir.Buffer],
    epilogue: EpilogueOperands,
    output: tir.Buffer,
) -> None:
    """Emit the kernel for fewer panels than threads; arguments as for :func:`emit_fused`.

    One panel after the other: first its input channels are transformed in parallel, then its
    blocks of output channels are computed in parallel.
    """
    count = ceil_div(plan.conv.c, layout.k_blocks)
    with (
        tvm_ir.scratch((layout.v.size,)) as v,
        T.serial(0, layout.panels.count) as panel,
    ):
        with T.parallel(0, ceil_div(plan.conv.c, count)) as part:
            channels = (part * count, tir.min(count, plan.conv.c - part * count))
            _emit_input(data, v, plan, layout, panel, channels)
        with (
            T.parallel(0, layout.k_blocks) as block,
            tvm_ir.scratch((layout.product.size,)) as product,
        ):
            _emit_product(weights, v, product, block, plan, layout, vector_registers)
            _emit_output(product, output, block, panel, plan, layout, epilogue)


def _emit_input(
    data: Any, v: Any, plan: LayerPlan, layout: KernelLayout, panel: Any, channels: tuple[Any, Any]
) -> None:
    algorithm = cook_toom(plan.m, plan.conv.r)
    emit_input_transform(data, v, plan.conv, layout, algorithm, panel, channels)


def _emit_product(
    weights: list[Any],
    v: Any,
    product: Any,
    block: Any,
    plan: LayerPlan,
    layout: KernelLayout,
    vector_registers: int,
) -> None:
    if plan.structure != "unstructured":
        emit_structured_gemm(weights, v, product, block, plan, layout, vector_registers)
    elif plan.algorithm == "sparse_winograd":
        emit_sparse_gemm(weights, v, product, block, plan, layout)
    else:
        emit_dense_gemm(weights, v, product, block, plan, layout, vector_registers)


def _emit_output(
    product: Any,
    output: Any,
    block: Any,
    panel: Any,
    plan: LayerPlan,
    layout: KernelLayout,
    epilogue: EpilogueOperands,
) -> None:
    algorithm = cook_toom(plan.m, plan.conv.r)
    emit_output_transform(product, output, block, panel, plan.conv, layout, algorithm, epilogue)
