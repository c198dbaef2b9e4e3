"""Parts of a vector cover exactly the lanes that are meant."""

import numpy as np
import pytest

from tvm_sparsewino import _compat
from tvm_sparsewino._compat import T
from tvm_sparsewino.schedules.tails import emit_counted_tail, emit_tail
from tvm_sparsewino.schedules.target import parse_target


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_parts_are_powers_of_two_side_by_side(lanes):
    for width in range(lanes + 1):
        parts = []

        def store(part, first, count, parts=parts):
            parts.append((part, first, count))

        value = _compat.broadcast(1.0, lanes)
        emit_tail(value, lanes, width, store)
        covered = [lane for _, first, count in parts for lane in range(first, first + count)]
        assert covered == list(range(width))
        assert all(count & (count - 1) == 0 for _, _, count in parts)
        assert len(parts) == width.bit_count()
        if width == lanes:
            assert parts[0][0] is value


@pytest.mark.parametrize("lanes", [4, 8])
def test_a_counted_tail_stores_what_is_meant(lanes):
    """Run with every width: value in the first lanes, the rest untouched."""
    with _compat.prim_func("tail") as builder:
        count = _compat.arg("count", (1,), "int32")
        data = _compat.arg("data", (lanes,), "float32")
        out = _compat.arg("out", (lanes,), "float32")

        def store(part, first, width):
            T.buffer_store(out, part, [_compat.ramp(first, 1, width)])

        value = data[_compat.ramp(0, 1, lanes)]
        emit_counted_tail(value, lanes, _compat.bind(count[0]), store)
    kernel = _compat.build_module(builder.get(), parse_target("native").tvm_target())["tail"]
    x = np.arange(1, lanes + 1, dtype=np.float32)
    for width in range(lanes):
        tensors = [_compat.runtime_tensor(a) for a in (np.int32([width]), x, 0 * x)]
        kernel(*tensors)
        np.testing.assert_array_equal(tensors[2].numpy(), np.where(x <= width, x, 0))
