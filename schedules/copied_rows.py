"""Copy rows of a map into scratch, split by a stride, with zeros before and behind.

Every load and store lies inside its row, so nothing is read beyond the map and nothing written
twice but equal values: rows are copied by whole vectors, the last one ending where the row ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..geometry import ceil_div
from ..geometry_panels import CopiedRow

# Strides up to which vectors are taken apart by shuffles; beyond, element by element.
_SHUFFLED_STRIDE = 4


def emit_copy(
    data: Any, index: list[Any], scratch: Any, base: Any, row: CopiedRow, lanes: int
) -> None:
    """Emit the copy of what ``row`` has of the map.

    Args:
        data: buffer [N, C, H, W].
        index: image, channel and row of the map.
        scratch: buffer.
        base: where the copied row begins in it.
        row: what is copied.
        lanes: float32 lanes of a vector.
    """

    def copy(x: Any, width: int) -> None:
        value = _load(data, index, row.first + x * row.step, row.step, width)
        T.buffer_store(scratch, value, [tvm_ir.ramp(base + x, 1, width)])

    _cover(row.start, row.stop, lanes, copy)


def _load(data: Any, index: list[Any], x: Any, step: int, width: int) -> Any:
    """Elements ``x, x + step, ...`` of a row; nothing beyond the last of them is read."""
    if step == 1 or width == 1 or step > _SHUFFLED_STRIDE:
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

    _cover(start, stop, lanes, zero)


def _cover(start: int, stop: int, lanes: int, emit: Callable[[Any, int], None]) -> None:
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
