"""Output transform: Y = A^T M A of one block of output channels, with the epilogue, into NCHW.

Vectors of tiles run over the ends of row segments. Columns first: the ``alpha`` products of a
column become ``m`` rows, which are staged; then row by row, and the ``m`` outputs of a tile, which
lie beside each other, are woven together by shuffles. Whole rows of pixels are staged once more,
so that the map is written row by row whatever its width.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..config import ConvShape
from ..cook_toom import CookToom
from ..geometry import KernelLayout
from ..geometry_pooling import WINDOW, output_map
from .blocks import Blocks
from .epilogue import EpilogueOperands
from .linear_transform import apply_matrix
from .output_rows import emit_rows
from .prefetching import prefetch_outputs
from .quads import lane_order, weave, weave_in_order
from .segments import each_segment


def emit_output_transform(
    product: Any,
    output: Any,
    blocks: Blocks,
    panel: Any,
    shape: ConvShape,
    layout: KernelLayout,
    algorithm: CookToom,
    epilogue: EpilogueOperands,
) -> None:
    """Emit the transform of a panel for some blocks of output channels.

    Args:
        product: scratch of products.
        output: buffer [N, K, OH, OW], or of the pooled map.
        blocks: the blocks of output channels.
        panel: index of the panel.
        shape: the convolution.
        layout: memory layout.
        algorithm: F(m, r).
        epilogue: what follows the convolution, with its buffers.
    """
    first, most = blocks.first * layout.k_block, blocks.count * layout.k_block
    count = tir.min(shape.k - first, most) if shape.k % layout.k_block else most
    first_row = layout.first_row(blocks.first)
    panels = layout.panels
    m, alpha, lanes = panels.m, panels.alpha, panels.lanes
    written = output_map(shape, m, epilogue.epilogue.pool)
    step = written.step
    with (
        tvm_ir.local_buffer((m, alpha * lanes)) as halves,
        tvm_ir.local_buffer((step, panels.vectors * lanes * step)) as woven,
        T.serial(0, count) as row,
    ):
        k = tvm_ir.bind(first + row)
        base = tvm_ir.bind(layout.product.channel_offset(first_row + row))
        with T.serial(0, panels.vectors) as vector:
            prefetch_outputs(output, written, panels, panel, k, vector)
            if epilogue.residual is not None:
                prefetch_outputs(epilogue.residual, written, panels, panel, k, vector, write=False)
            _emit_columns(product, halves, base + vector * lanes, layout, algorithm)
            with T.serial(0, step) as i:
                for number, pixels in enumerate(_row(halves, i, layout, algorithm, epilogue, k)):
                    at = vector * (lanes * step) + number * lanes
                    T.buffer_store(woven, pixels, [i, tvm_ir.ramp(at, 1, lanes)])
        with each_segment(panels, panel) as segment:
            emit_rows(woven, output, written, panels, epilogue, segment, k)


def _emit_columns(
    product: Any, halves: Any, base: Any, layout: KernelLayout, algorithm: CookToom
) -> None:
    """A^T from the left, for one vector of tiles."""
    alpha, lanes, step = algorithm.alpha, layout.panels.lanes, layout.product.coordinate_stride
    with T.serial(0, alpha) as j:
        offsets = [base + j * step + i * (alpha * step) for i in range(alpha)]
        xs = [tvm_ir.bind(product[tvm_ir.ramp(o, 1, lanes)]) for o in offsets]
        for i, y in enumerate(apply_matrix(algorithm.at, xs, lanes)):
            T.buffer_store(halves, y, [i, tvm_ir.ramp(j * lanes, 1, lanes)])


def _outputs(
    halves: Any,
    i: Any,
    layout: KernelLayout,
    algorithm: CookToom,
    epilogue: EpilogueOperands,
    k: Any,
) -> list[Any]:
    """A from the right, and the bias: row ``i`` of the tiles, as ``m`` vectors over tiles."""
    lanes = layout.panels.lanes
    xs = [tvm_ir.bind(halves[i, tvm_ir.ramp(j * lanes, 1, lanes)]) for j in range(algorithm.alpha)]
    ones = _column_of_ones(algorithm)
    if ones is not None:
        xs[ones] = tvm_ir.bind(epilogue.add_bias(xs[ones], k, lanes))
        return apply_matrix(algorithm.at, xs, lanes)
    ys = apply_matrix(algorithm.at, xs, lanes)
    return [tvm_ir.bind(epilogue.add_bias(y, k, lanes)) for y in ys]


def _row(
    halves: Any,
    i: Any,
    layout: KernelLayout,
    algorithm: CookToom,
    epilogue: EpilogueOperands,
    k: Any,
) -> list[Any]:
    """Row ``i`` of what the tiles leave in the map: vectors of pixels in the order of the map.

    A pool takes windows while their numbers are in registers, so that less is woven.
    """
    m, lanes = algorithm.m, layout.panels.lanes
    if epilogue.epilogue.pool == "none":
        return weave(_outputs(halves, i, layout, algorithm, epilogue, k), lanes)
    rows = [_outputs(halves, i * WINDOW + n, layout, algorithm, epilogue, k) for n in range(WINDOW)]
    windows = [[y for row in rows for y in row[j : j + WINDOW]] for j in range(0, m, WINDOW)]
    return weave_in_order(epilogue.pooled(windows, k, lanes), lane_order(m, lanes), lanes)


def _column_of_ones(algorithm: CookToom) -> int | None:
    """The column of A^T, that of the point 1, which adds to all outputs alike; None without it."""
    columns = zip(*algorithm.at, strict=True)
    return next((j for j, column in enumerate(columns) if set(column) == {1}), None)
