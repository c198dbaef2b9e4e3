"""Load adjacent numbers of a buffer and broadcast each into a vector of its own.

The products read one vector per multiply-add already, as many as a core can load. Reading weights
four at a time and spreading them with shuffles takes the loads of three of them away: two vectors
and four rows need 9 instead of 12 loads for 8 multiply-adds.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir
from .._compat import tir
from .wide import wide

_LOADED_AT_ONCE = (2, 4)  # floats that repeat within every 128 bits, as cheap shuffles want them


def load_splats(buffer: Any, first: Any, count: int, lanes: int) -> list[Any]:
    """Emit vectors of ``lanes`` lanes of ``buffer[first]`` to ``buffer[first + count - 1]``."""
    if count not in _LOADED_AT_ONCE or lanes % count:
        values = [buffer[first + i] for i in range(count)]
        return [tvm_ir.bind(tvm_ir.broadcast(value, lanes)) for value in values]
    repeats = lanes // count
    loaded = buffer[tvm_ir.ramp(first, 1, count)]
    # LLVM would take the load apart again, into one broadcast from memory per number.
    whole = tvm_ir.opaque(tvm_ir.shuffle([loaded] * repeats, [*range(count)] * repeats), lanes)
    return [_spread(whole, i, count, lanes) for i in range(count)]


def _spread(whole: Any, number: int, count: int, lanes: int) -> Any:
    taken = [number + lane // count * count for lane in range(lanes)]
    return tvm_ir.bind(tvm_ir.shuffle([whole], taken))


def load_offsets(offsets: Any, first: Any, count: int) -> list[Any]:
    """``offsets[first]`` to ``offsets[first + count - 1]``, none negative, two with one load.

    Loads are what products keep waiting for: four rows of three vectors need 15 instead of 17.
    """
    if count % 2:
        return [wide(offsets[first + i]) for i in range(count)]
    halves = []
    for i in range(0, count, 2):
        pair = offsets[tvm_ir.ramp(first + i, 1, 2)]
        pair = tvm_ir.bind(tir.reinterpret("int64", pair))
        halves += [pair & tir.const(2**32 - 1, "int64"), pair >> tir.const(32, "int64")]
    return halves
