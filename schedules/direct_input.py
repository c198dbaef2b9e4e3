"""Input of the direct convolution: rows of a panel, with their padding, copied into scratch.

Every load and store lies inside its row, so nothing is read beyond the map and nothing written
twice but equal values: rows are copied by whole vectors, the last one ending where the row ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T, tir
from ..geometry import ceil_div
from ..geometry_direct import DirectLayout

# Strides up to which vectors are taken apart by shuffles; beyond, element by element.
SHUFFLED_STRIDE = 4


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
        rows = [Row(f, step, length, shape.w, layout.lanes) for f in firsts]
        with T.If(tir.all(y >= 0, y < shape.h)):
            with T.Then():
                for j, part in enumerate(rows):
                    at = base + j * layout.copy_stride
                    emit_zeros(scratch, at, 0, part.start, layout.lanes)
                    part.emit_copy(data, [image, channel + c, y], scratch, at)
                    emit_zeros(scratch, at, part.stop, length, layout.lanes)
            with T.Else():
                for j in range(layout.copies):
                    emit_zeros(scratch, base + j * layout.copy_stride, 0, length, layout.lanes)


@dataclass(frozen=True)
class Row:
    """Which elements of a row of the map a copied row holds.

    Attributes:
        first: column of the map that its first element comes from; may be negative.
        step: columns from one element to the next.
        length: elements of the copied row.
        width: columns of the map.
        lanes: float32 lanes of a vector.
    """

    first: int
    step: int
    length: int
    width: int
    lanes: int

    @property
    def start(self) -> int:
        """The first element that lies in the map; those before are padding."""
        return min(ceil_div(max(-self.first, 0), self.step), self.length)

    @property
    def stop(self) -> int:
        """The end of those in the map; the rest is padding."""
        return max(min(ceil_div(self.width - self.first, self.step), self.length), self.start)

    def emit_copy(self, data: Any, index: list[Any], scratch: Any, base: Any) -> None:
        """Emit the copy of what lies in the map from row ``index`` to ``base``."""

        def copy(x: Any, width: int) -> None:
            value = _load(data, index, self.first + x * self.step, self.step, width)
            T.buffer_store(scratch, value, [tvm_ir.ramp(base + x, 1, width)])

        cover(self.start, self.stop, self.lanes, copy)


def _load(data: Any, index: list[Any], x: Any, step: int, width: int) -> Any:
    """Elements ``x, x + step, ...`` of a row; nothing beyond the last of them is read."""
    if step == 1 or width == 1 or step > SHUFFLED_STRIDE:
        return data[(*index, tvm_ir.ramp(x, step, width))]
    last = step * (width - 1)
    starts = [min(part * width, last + 1 - width) for part in range(ceil_div(last + 1, width))]
    parts = [tvm_ir.bind(data[(*index, tvm_ir.ramp(x + at, 1, width))]) for at in starts]
    places = [divmod(lane * step, width)[0] for lane in range(width)]
    lanes = [part * width + lane * step - starts[part] for lane, part in enumerate(places)]
    return tvm_ir.shuffle(parts, lanes)


def emit_zeros(scratch: Any, base: Any, start: int, stop: int, lanes: int) -> None:
    """Emit zeros from ``start`` to ``stop``, counted from ``base``."""

    def zero(x: Any, width: int) -> None:
        value = tvm_ir.broadcast(0.0, width)
        T.buffer_store(scratch, value, [tvm_ir.ramp(base + x, 1, width)])

    cover(start, stop, lanes, zero)


def cover(start: int, stop: int, lanes: int, emit: Callable[[Any, int], None]) -> None:
    """Call ``emit(x, width)`` so that start..stop is covered and nothing else; some of it twice."""
    length = stop - start
    if length <= 0:
        return
    width = lanes
    while width > length:
        width //= 2
    if length // width > 1:
        with T.serial(0, length // width) as vector:
            emit(start + vector * width, width)
    else:
        emit(start, width)
    if length % width:
        emit(stop - width, width)
