"""The kernel of one convolution as a PrimFunc: its parameters, and which stages fill it."""

from __future__ import annotations

from collections.abc import Sequence

from .. import _compat as tvm_ir
from .._compat import tir
from ..config import Epilogue, LayerPlan
from ..errors import ConfigError
from ..geometry import check_shape, kernel_layout
from ..geometry_depthwise import depthwise_layout, is_depthwise
from ..geometry_direct import direct_layout
from ..geometry_pooling import output_shape, pool_refusal
from ..geometry_sparse import sparse_layout
from ..pool_window import HALVING
from .depthwise import emit_depthwise
from .direct_conv import emit_direct_conv
from .epilogue import EpilogueOperands
from .fused import emit_fused
from .sparse_conv import emit_sparse_conv
from .sparse_store import stores_once

_OPERANDS = {
    "sparse_winograd": ("starts", "rows", "offsets", "values"),
    "dense_winograd": ("rows", "inputs", "values"),
    "sparse_direct": ("starts", "rows", "offsets", "values"),
    "dense_direct": ("values",),
}
Spec = tuple[tuple[int, ...], str]


def build_conv(
    plan: LayerPlan,
    epilogue: Epilogue,
    packed: Sequence[Spec],
    lanes: int,
    vector_registers: int,
) -> tir.PrimFunc:
    """Build the kernel of ``plan``.

    Parameters of the PrimFunc: data float32 [N, C, H, W], the packed arrays, bias [K], slope [K],
    residual [N, K, OH, OW] as far as the epilogue has them, output float32 [N, K, OH, OW], or
    smaller with a pool.

    Args:
        plan: what the planner decided.
        epilogue: what follows the convolution.
        packed: shape and dtype of every packed array (``PackedWeights.specs``).
        lanes: float32 lanes of a vector.
        vector_registers: vector registers of the target.

    Raises:
        ConfigError: a plan that has no kernel, or none with such an epilogue.
        ShapeError: a shape that no kernel can take.
    """
    if plan.algorithm not in _OPERANDS:
        raise ConfigError(f"there is no kernel for algorithm {plan.algorithm!r}")
    shape = plan.conv
    check_shape(shape)
    refusal = pool_refusal(plan, epilogue) if epilogue.pool != "none" else ""
    if refusal:
        raise ConfigError(f"no kernel pools here: {refusal}")
    pools = ((plan.pool, plan.window), (epilogue.pool, epilogue.window))
    if plan.algorithm == "sparse_direct" and pools[0] != pools[1]:
        raise ConfigError(f"a plan whose pool is {pools[0]} has no kernel that pools {pools[1]}")
    out_shape = (shape.n, shape.k, shape.oh, shape.ow)
    with tvm_ir.prim_func(kernel_name(plan, epilogue)) as builder:
        data = tvm_ir.arg("data", (shape.n, shape.c, shape.h, shape.w), "float32")
        names = _OPERANDS[plan.algorithm]
        weights = [tvm_ir.arg(n, *spec) for n, spec in zip(names, packed, strict=True)]
        bias = tvm_ir.arg("bias", (shape.k,), "float32") if epilogue.bias else None
        prelu = epilogue.activation == "prelu"
        slope = tvm_ir.arg("slope", (shape.k,), "float32") if prelu else None
        residual = tvm_ir.arg("residual", out_shape, "float32") if epilogue.residual else None
        output = tvm_ir.arg("output", output_shape(shape, epilogue), "float32")
        operands = EpilogueOperands(epilogue, bias, slope, residual)
        if plan.algorithm == "dense_direct" and is_depthwise(shape):
            layout = depthwise_layout(plan, lanes)
            emit_depthwise(data, weights[0], output, layout, operands, vector_registers)
        elif plan.algorithm == "dense_direct":
            layout = direct_layout(plan, lanes)
            emit_direct_conv(data, weights[0], output, layout, operands, vector_registers)
        elif plan.algorithm == "sparse_direct":
            layout = sparse_layout(plan, lanes)
            emit_sparse_conv(data, weights, output, layout, operands, vector_registers)
        else:
            layout = kernel_layout(plan, lanes)
            emit_fused(plan, layout, vector_registers, data, weights, operands, output)
    return builder.get()


def adds_in_place(plan: LayerPlan, epilogue: Epilogue, lanes: int) -> bool:
    """Whether the kernel's output may lie in the memory of the map that it adds.

    It may where every output is stored once: what is stored twice is added twice.
    """
    if not epilogue.residual:
        return False
    if plan.algorithm == "sparse_direct":
        return stores_once(sparse_layout(plan, lanes))
    return plan.algorithm != "dense_direct" or not is_depthwise(plan.conv)


def kernel_name(plan: LayerPlan, epilogue: Epilogue) -> str:
    """A name that states operator, tile, channels, map and epilogue."""
    s = plan.conv
    tile = f"f{plan.m}x{s.r}" if plan.m else f"{s.r}x{s.s}"
    parts = [plan.algorithm, tile, f"c{s.c}k{s.k}", f"n{s.n}h{s.h}w{s.w}"]
    parts += [f"s{s.stride[0]}x{s.stride[1]}"] * (s.stride != (1, 1))
    parts += [f"d{s.dilation[0]}x{s.dilation[1]}"] * (s.dilation != (1, 1))
    parts += [f"g{s.groups}"] * (s.groups > 1)
    parts += [plan.structure] * (plan.structure != "unstructured")
    parts += ["winograd_relu"] * plan.winograd_relu
    parts += ["bias"] * epilogue.bias + ["add"] * epilogue.residual
    parts += [epilogue.activation] * (epilogue.activation != "none")
    parts += [f"{epilogue.pool}_pool"] * (epilogue.pool != "none")
    parts += ["x".join(map(str, epilogue.window))] * (epilogue.window != HALVING)
    return "_".join(parts)
