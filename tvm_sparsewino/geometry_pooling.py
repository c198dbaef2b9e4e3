"""2x2 pooling with stride 2 after a convolution: sizes, and which kernels can do it themselves."""

from __future__ import annotations

from dataclasses import dataclass

from .config import ConvShape, Epilogue, LayerPlan

WINDOW = 2  # rows and columns of a window, and its stride


@dataclass(frozen=True)
class OutputMap:
    """What a kernel writes of every output channel.

    Attributes:
        step: numbers per tile and dimension.
        height, width: of the whole map.
    """

    step: int
    height: int
    width: int


def output_map(shape: ConvShape, m: int, pool: str) -> OutputMap:
    """The map that tiles of m x m outputs make, pooled or not; windows that jut out are dropped."""
    if pool == "none":
        return OutputMap(m, shape.oh, shape.ow)
    return OutputMap(m // WINDOW, shape.oh // WINDOW, shape.ow // WINDOW)


def output_shape(shape: ConvShape, epilogue: Epilogue) -> tuple[int, int, int, int]:
    """Shape of the output [N, K, ...] behind the whole epilogue."""
    result = output_map(shape, 0, epilogue.pool)
    return shape.n, shape.k, result.height, result.width


def pool_refusal(plan: LayerPlan, residual: bool = False) -> str:
    """Why the kernel of ``plan`` cannot pool its outputs; "" when it can.

    Windows must lie inside tiles, so that the four numbers of each are in registers together. A
    residual is added row by row, when they no longer are.
    """
    if not plan.algorithm.endswith("winograd"):
        return f"only Winograd kernels pool, not {plan.algorithm!r}"
    if plan.m % WINDOW:
        return f"tiles of {plan.m} x {plan.m} outputs cut windows apart"
    if min(plan.conv.oh, plan.conv.ow) < WINDOW:
        return f"a {plan.conv.oh}x{plan.conv.ow} map has no window"
    return "a residual is added before it" if residual else ""
