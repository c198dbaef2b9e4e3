"""Choose the sparse GEMM for a structure of zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import LayerPlan
from ..geometry import KernelLayout
from .blocks import Blocks
from .shared_gemm import emit_shared_gemm
from .uniform_gemm import emit_balanced_gemm, emit_kernel_gemm


def emit_structured_gemm(
    packed: Sequence[Any],
    v: Any,
    product: Any,
    blocks: Blocks,
    plan: LayerPlan,
    layout: KernelLayout,
    vector_registers: int,
) -> None:
    """Emit the products of some blocks of output channels; weights as ``plan.structure`` says.

    Args:
        packed: buffers of the packed weights (see :mod:`tvm_sparsewino.packing_structured`).
        v: scratch of transformed inputs.
        product: scratch of products.
        blocks: the blocks of output channels.
        plan: the layer's plan.
        layout: memory layout.
        vector_registers: registers of the target.
    """
    if plan.structure == "balanced":
        emit_balanced_gemm(packed, v, product, blocks, plan, layout)
    elif plan.structure == "kernel":
        emit_kernel_gemm(packed, v, product, blocks, plan, layout)
    else:
        emit_shared_gemm(packed, v, product, blocks, plan, layout, vector_registers)
