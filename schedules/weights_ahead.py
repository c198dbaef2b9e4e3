"""Prefetch packed weights that stream past from beyond L2.

Values and offsets are read in order, once for a panel. CPUs see such streams, but a Zen 4 does not
fetch far enough ahead where all lines come from L3 or memory. On a Zen 3 asking early was up to
half as slow again, so only code for AVX-512 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..geometry import CACHE_LINE, FLOAT_BYTES

# Bytes of weights from which on it is worth the instructions. Sparse: values and offsets of a
# Winograd layer with 1.9 MB came as fast unasked, a direct one has little else to read. Dense ones
# are passed quickly: those that find no room in L2.
WINOGRAD_BYTES, DIRECT_BYTES, DENSE_BYTES = 3 << 20, 1 << 19, 1 << 20
AHEAD = 4096  # numbers between what is read and what is asked for; 1024 to 16384 are as good
_REGISTERS, _LANES = 32, 8  # of AVX-512, the fewest lanes that plans choose there


def asks_ahead(vector_registers: int, lanes: int) -> bool:
    """Whether kernels of a target ask for weights early."""
    return vector_registers >= _REGISTERS and lanes >= _LANES


def prefetch_run(values: Any, first: Any, count: int) -> None:
    """Emit requests for the lines of ``count`` numbers, ``AHEAD`` numbers after ``first``."""
    for number in range(0, count, CACHE_LINE):
        tvm_ir.prefetch(values, (first + AHEAD + number,), level=2)


def prefetch_weights(streams: Sequence[Any], first: Any, count: Any, least: int) -> None:
    """Emit requests for as many lines as a slice reads, ``AHEAD`` numbers after it.

    How many weights there are is known when the kernel runs: layers that differ in it share one.

    Args:
        streams: buffers of numbers of four bytes, equally many: offsets and values.
        first: the slice's first number in each.
        count: how many it reads.
        least: bytes of all streams from which on lines are asked for.
    """
    numbers = streams[0].shape[0]
    lines = (count + CACHE_LINE - 1) // CACHE_LINE
    are_many = numbers >= least // (FLOAT_BYTES * len(streams))
    with T.If(are_many), T.Then(), T.serial(0, lines) as line:
        for stream in streams:
            tvm_ir.prefetch(stream, (first + AHEAD + line * CACHE_LINE,), level=2)
