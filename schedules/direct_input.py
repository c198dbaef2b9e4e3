"""Input of the direct convolution: rows of a panel, with their padding, copied into scratch."""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry_direct import DirectLayout
from ..geometry_panels import CopiedRow
from .copied_rows import emit_copy, emit_zeros


def emit_direct_input(
    data: Any, scratch: Any, layout: DirectLayout, image: Any, channel: Any, count: Any, row: Any
) -> None:
    """Emit the copy of ``count`` channels from ``channel`` on.

    Args:
        data: buffer [N, C, H, W].
        scratch: buffer laid out by ``layout``.
        layout: memory layout.
        image: image of the batch.
        channel: first input channel.
        count: number of channels.
        row: first output row of the panel.
    """
    shape, length = layout.shape, layout.row_stride
    step, left = shape.stride[1] if layout.is_flat else 1, shape.padding[1]
    firsts = [j * shape.dilation[1] - left for j in range(layout.copies)]
    with T.serial(0, count) as c, T.serial(0, layout.phases * layout.phase_rows) as position:
        # Rows in the map's order, which the CPU foresees.
        phase, index = position % layout.phases, position // layout.phases
        y = tvm_ir.bind((row + index) * shape.stride[0] + phase - shape.padding[0])
        base = tvm_ir.bind(c * layout.rows_stride + (phase * layout.phase_rows + index) * length)
        rows = [CopiedRow(first, step, length, shape.w) for first in firsts]
        with T.If(tir.all(y >= 0, y < shape.h)):
            with T.Then():
                for j, part in enumerate(rows):
                    at = base + j * layout.copy_stride
                    emit_zeros(scratch, at, 0, part.start, layout.lanes)
                    emit_copy(data, [image, channel + c, y], scratch, at, part, layout.lanes)
                    emit_zeros(scratch, at, part.stop, length, layout.lanes)
            with T.Else():
                for j in range(layout.copies):
                    emit_zeros(scratch, base + j * layout.copy_stride, 0, length, layout.lanes)
