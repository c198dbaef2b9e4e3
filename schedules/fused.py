"""The three stages of a Winograd convolution, panel by panel, and what of them runs in parallel.

Neither transformed inputs nor products ever exist for the whole layer: a thread keeps the inputs of
one panel and the products of one block of output channels. No output is ever summed up by several
threads, so results do not depend on their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import LayerPlan
from ..cook_toom import cook_toom
from ..geometry import KernelLayout
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
    """Emit the kernel whose tasks run in parallel and share nothing.

    A task is a panel, or with ``plan.split_k`` one block of output channels of a panel. Such tasks
    each transform the panel's inputs for themselves: that costs less than to wait for other cores
    and to fetch from their caches.

    Args:
        plan: what the planner decided.
        layout: memory layout.
        vector_registers: vector registers of the target.
        data: buffer [N, C, H, W].
        weights: the packed arrays.
        epilogue: what follows the convolution, with its buffers.
        output: buffer [N, K, OH, OW].
    """
    shape, algorithm = plan.conv, cook_toom(plan.m, plan.conv.r)
    parts = layout.k_blocks if plan.split_k else 1
    blocks = layout.k_blocks // parts
    with (
        T.parallel(0, layout.panels.count * parts) as task,
        panel_scratch(layout) as (v, product),
    ):
        panel = tvm_ir.bind(task // parts)
        emit_input_transform(data, v, shape, layout, algorithm, panel, plan.winograd_relu)
        with T.serial(0, blocks) as number:
            block = tvm_ir.bind(task % parts * blocks + number)
            _emit_product(weights, v, product, block, plan, layout, vector_registers)
            emit_output_transform(product, output, block, panel, shape, layout, algorithm, epilogue)


@contextmanager
def panel_scratch(layout: KernelLayout) -> Iterator[tuple[tir.Buffer, tir.Buffer]]:
    """A thread's memory for transformed inputs and for products."""
    with tvm_ir.scratch((layout.v.size,)) as v:
        if layout.is_shared:
            yield v, v
        else:
            with tvm_ir.scratch((layout.product.size,)) as product:
                yield v, product


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
