"""Analytic cost of the depthwise convolution, and its blocking. Pure.

What must happen to a vector of outputs: its multiply-adds or its loads, whichever take longer, the
copy of the rows it reads, and its way into memory in parts of powers of two. Constants were fitted
on an AVX2 core, with maps of up to some megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from .config import ConvShape, LayerPlan
from .cost_quantities import Blocking, Core
from .geometry import ceil_div
from .geometry_depthwise import DepthwiseLayout, depthwise_layout, register_rows

PLANE_FLOATS = 6 * 1024  # of a task's planes, which stay in L1
MANY_FLOATS = 512  # of planes that are copied together: what is stored is not loaded at once
SPLIT = 1.25  # a quarter of the loads meets two cache lines
COPY_CYCLES = 1.3  # per vector copied
SHUFFLE_CYCLES = 2.2  # per vector copied with a horizontal stride
ROW_CYCLES = 2.0  # per row copied
OUTPUT_CYCLES = 1.3  # per part of a row written
ZERO_CYCLES = 1.0  # per vector of zeros that a task begins with
CHANNEL_CYCLES = 8.0  # around a channel's rows
TASK_CYCLES = 250.0
K_BLOCKS = (16, 64, 256)


def depthwise_blockings(shape: ConvShape, core: Core) -> Iterator[Blocking]:
    """Every blocking that the model compares."""
    vectors = ceil_div(shape.ow, core.lanes)
    whole = _layout(shape, core, Blocking(0, 0, 1, 1))
    row = whole.plane_stride // whole.phase_rows
    reach = whole.phase_rows - whole.rows
    rows = min(max(PLANE_FLOATS // row - reach, 1), shape.oh)
    shared = ceil_div(shape.k, core.threads)
    for height in dict.fromkeys((rows, ceil_div(rows, 2))):
        for k in dict.fromkeys(min(k, shape.k) for k in (*K_BLOCKS, shared, shape.k)):
            layout = _layout(shape, core, Blocking(height * vectors, k, 1, 1))
            planes = max(MANY_FLOATS // layout.plane_stride, 1)
            yield Blocking(height * vectors, k, min(planes, layout.channels), 1)


def depthwise_cycles(
    shape: ConvShape, core: Core, blocking: Blocking
) -> tuple[float, float, float]:
    """Cycles of copies, of multiply-adds and of outputs on the core that has most to do."""
    layout = _layout(shape, core, blocking)
    tasks = ceil_div(layout.tasks, core.threads)
    per_vector = SHUFFLE_CYCLES if shape.stride[1] > 1 else COPY_CYCLES
    across = ceil_div(ceil_div(shape.w, shape.stride[1]), core.lanes)
    copied = layout.phases[0] * layout.phase_rows
    copies = copied * layout.phases[1] * (across * per_vector + ROW_CYCLES)
    zeros = layout.scratch_size / core.lanes * ZERO_CYCLES
    products = layout.rows * layout.row_vectors * _vector(layout, core) + CHANNEL_CYCLES
    whole, tail = divmod(shape.ow, core.lanes)
    outputs = layout.rows * (whole + tail.bit_count()) * OUTPUT_CYCLES
    return (
        tasks * (layout.channels * copies + zeros + TASK_CYCLES),
        tasks * layout.channels * layout.outputs * products,
        tasks * layout.channels * layout.outputs * outputs,
    )


def _vector(layout: DepthwiseLayout, core: Core) -> float:
    """Cycles of the taps of one vector of outputs."""
    shape = layout.shape
    rows = min(register_rows(core.vector_registers), layout.rows)
    reads = min((rows - 1) * shape.stride[0] + shape.extent[0], rows * shape.r)
    loads = reads * shape.s / rows * SPLIT
    if shape.taps > core.vector_registers - rows - 2:
        loads += shape.taps  # they do not stay in registers
    return max(shape.taps, loads) / core.vectors_per_cycle


def _layout(shape: ConvShape, core: Core, blocking: Blocking) -> DepthwiseLayout:
    plan = LayerPlan("", shape, 1.0, "dense_direct", 0, *vars(blocking).values())
    return depthwise_layout(plan, core.lanes)
