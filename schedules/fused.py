"""The three stages of a Winograd convolution, panel by panel, and which of them run in parallel.

Neither transformed inputs nor products ever exist for the whole layer: a thread keeps the inputs of
one panel and the products of one block of output channels. No output is ever summed up by several
threads, so results do not depend on their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import LayerPlan
from ..cook_toom import cook_toom
from ..geometry import KernelLayout
from ..geometry_tasks import share_out
from .blocks import Blocks
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

    A task is a panel, or with ``plan.split_k`` one block of output channels of a panel: of all, or
    of those that are left when each thread has as many whole ones. Such tasks each transform the
    panel's inputs for themselves: that costs less than to wait for other cores and to fetch from
    their caches.

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

    def emit_inputs(panel: Any, v: Any) -> None:
        emit_input_transform(data, v, shape, layout, algorithm, panel, plan.winograd_relu)

    def emit_outputs(panel: Any, v: Any, product: Any, blocks: Blocks) -> None:
        _emit_product(weights, v, product, blocks, plan, layout, vector_registers)
        emit_output_transform(product, output, blocks, panel, shape, layout, algorithm, epilogue)

    if plan.sharers:
        _emit_shared_out(plan, layout, emit_inputs, emit_outputs)
        return
    parts = layout.k_blocks if plan.split_k else 1
    count = layout.k_blocks // parts
    with (
        T.parallel(0, layout.panels.count * parts) as task,
        panel_scratch(layout) as (v, product),
    ):
        panel = tvm_ir.bind(task // parts)
        emit_inputs(panel, v)
        with T.serial(0, count) as number:
            block = tvm_ir.bind(task % parts * count + number)
            emit_outputs(panel, v, product, Blocks(block))


def _emit_shared_out(
    plan: LayerPlan,
    layout: KernelLayout,
    emit_inputs: Callable[[Any, Any], None],
    emit_outputs: Callable[[Any, Any, Any, Blocks], None],
) -> None:
    """Emit whole panels and blocks of those that are left: :mod:`tvm_sparsewino.geometry_tasks`."""
    tasks = share_out(layout.panels.count, layout.k_blocks, plan.sharers)
    with (
        T.parallel(0, tasks.count) as task,
        panel_scratch(layout) as (v, product),
    ):
        thread, place = tvm_ir.bind(task // tasks.each), tvm_ir.bind(task % tasks.each)
        is_whole = place < tasks.whole
        part = tvm_ir.bind(thread * tasks.parts + tir.max(place - tasks.whole, 0))
        left = tasks.threads * tasks.whole + part // tasks.blocks
        panel = tvm_ir.bind(tir.Select(is_whole, thread * tasks.whole + place, left))
        first = tvm_ir.bind(tir.Select(is_whole, tir.const(0, "int32"), part % tasks.blocks))
        one, every = tir.const(1, "int32"), tir.const(tasks.blocks, "int32")
        blocks = Blocks(first, tvm_ir.bind(tir.Select(is_whole, every, one)))

        def emit() -> None:
            emit_inputs(panel, v)
            emit_outputs(panel, v, product, blocks)

        if tasks.all_exist:
            emit()
        else:
            with T.If(tir.any(is_whole, part < tasks.left * tasks.blocks)), T.Then():
                emit()


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
    blocks: Blocks,
    plan: LayerPlan,
    layout: KernelLayout,
    vector_registers: int,
) -> None:
    if plan.structure != "unstructured":
        emit_structured_gemm(weights, v, product, blocks, plan, layout, vector_registers)
    elif plan.algorithm == "sparse_winograd":
        emit_sparse_gemm(weights, v, product, blocks, plan, layout, vector_registers)
    else:
        emit_dense_gemm(weights, v, product, blocks, plan, layout, vector_registers)
