"""Neighbouring numbers of a buffer, each of them in every lane of a vector of its own.

The products read one vector per multiply-add already, as many as a core can load. Reading weights
four at a time and spreading them with shuffles takes the loads of three of them away: two vectors
and four rows need 9 instead of 12 loads for 8 multiply-adds.
"""

from __future__ import annotations

from typing import Any

from .. import _compat as tvm_ir

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
