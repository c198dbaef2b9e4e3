"""Input of the sparse direct convolution of one tap: a run of pixels of every channel.

Channels lie one after the other without a gap, and every vector is aligned, wherever it lies in the
map: what a tile reads fills as little of L1 as it can.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import ceil_div
from ..geometry_sparse import SparseLayout

_UNROLLED = 12  # vectors


def emit_runs(data: Any, scratch: Any, layout: SparseLayout, source: tuple[Any, ...]) -> None:
    """Emit the copy of a panel's pixels; the last vector ends where the panel ends.

    Args:
        data: buffer [N, C, H, W].
        scratch: buffer laid out by ``layout``.
        layout: memory layout.
        source: image, first channel, number of channels, first pixel.
    """
    image, first, count, start = source
    lanes, vectors = layout.lanes, ceil_div(layout.rows, layout.lanes)

    def copy(c: Any, vector: Any) -> None:
        x = start + tir.min(vector * lanes, layout.rows - lanes)
        value = data[image, first + c, 0, tvm_ir.ramp(x, 1, lanes)]
        place = c * layout.channel_stride + vector * lanes
        T.buffer_store(scratch, value, [tvm_ir.ramp(place, 1, lanes)])

    with T.serial(0, count) as c:
        if vectors <= _UNROLLED:
            for vector in range(vectors):
                copy(c, vector)
        else:
            with T.serial(0, vectors) as vector:
                copy(c, vector)
