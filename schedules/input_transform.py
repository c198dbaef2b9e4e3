"""Input transform: V = B^T d B of every channel of a panel, lanes over tiles.

Channel by channel: first vertically, which stages the rows of all of the panel's segments, then
horizontally: the ``alpha`` inputs of a tile are ``m`` apart from the next tile's, so wide loads are
taken apart by shuffles. Vectors run over the ends of row segments, and every row of the scratch is
written once, from its first to its last vector.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import ConvShape
from ..cook_toom import CookToom
from ..geometry import KernelLayout
from .input_rows import Staging, clear, emit_vertical
from .linear_transform import apply_matrix
from .prefetching import prefetch_inputs
from .quads import take_apart
from .segments import each_segment, first_tile


def emit_input_transform(
    data: Any,
    v: Any,
    shape: ConvShape,
    layout: KernelLayout,
    algorithm: CookToom,
    panel: Any,
    relu: bool = False,
) -> None:
    """Emit the transform of all channels of one panel.

    Args:
        data: buffer [N, C, H, W].
        v: scratch, laid out by ``layout.v``.
        shape: the convolution.
        layout: memory layout.
        algorithm: F(m, r).
        panel: index of the panel.
        relu: whether negative results count as zero.
    """
    staging = Staging(layout.panels)
    with (
        tvm_ir.local_buffer((algorithm.alpha, staging.width)) as staged,
        tvm_ir.local_buffer((staging.runs,), "int64") as starts,
    ):
        clear(staged, staging)
        # Once per panel: the division by the tiles of a segment would cost more than the loads.
        _, first = first_tile(layout.panels, panel)
        with T.serial(0, staging.runs) as number:
            tile = tir.Cast("int64", number * staging.run + first)
            T.buffer_store(starts, staging.tile(tile), [number])
        with T.serial(0, shape.c) as channel:
            with each_segment(layout.panels, panel) as segment:
                emit_vertical(data, staged, shape, staging, algorithm, segment, channel)
            base = tvm_ir.bind(layout.v.channel_offset(channel))
            with T.serial(0, layout.panels.vectors) as vector:
                prefetch_inputs(data, shape, layout.panels, panel, channel + 1, vector)
                _emit_horizontal(staged, starts, v, base, vector, layout, staging, algorithm, relu)


def _emit_horizontal(
    staged: Any,
    starts: Any,
    v: Any,
    base: Any,
    vector: Any,
    layout: KernelLayout,
    staging: Staging,
    algorithm: CookToom,
    relu: bool,
) -> None:
    """B from the right: take apart, transform, and store every coordinate's vector of tiles."""
    m, alpha, lanes, run = algorithm.m, algorithm.alpha, layout.panels.lanes, staging.run
    first = vector * lanes
    runs = lanes // run
    at_run = [tvm_ir.bind(starts[vector * runs + number]) for number in range(runs)]
    with T.serial(0, alpha) as i:

        def load(tile: int, pixel: int, width: int) -> Any:
            at = at_run[tile // run] + (tile % run * m + pixel)
            return staged[i, tvm_ir.ramp(at, 1, width)]

        to = base + i * (alpha * layout.v.coordinate_stride) + first
        xs = take_apart(load, m, alpha, lanes, run)
        for j, y in enumerate(apply_matrix(algorithm.bt, xs, lanes)):
            at = to + j * layout.v.coordinate_stride
            value = tir.max(tvm_ir.broadcast(0.0, lanes), y) if relu else y
            T.buffer_store(v, value, [tvm_ir.ramp(at, 1, lanes)])
