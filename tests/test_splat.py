"""Splats: the numbers they hold, and that four of them cost one load."""

import numpy as np
import pytest

from tvm_sparsewino import _compat
from tvm_sparsewino._compat import T
from tvm_sparsewino.schedules.splat import load_offsets, load_splats
from tvm_sparsewino.schedules.target import parse_target

HOST = parse_target("native")


def built(count, lanes, rounds=3):
    with _compat.prim_func("splats") as builder:
        values = _compat.arg("values", (rounds * count,), "float32")
        out = _compat.arg("out", (rounds * count * lanes,), "float32")
        with T.serial(0, rounds) as i:
            for number, vector in enumerate(load_splats(values, i * count, count, lanes)):
                at = _compat.ramp((i * count + number) * lanes, 1, lanes)
                T.buffer_store(out, vector, [at])
    return _compat.build_module(builder.get(), HOST.tvm_target())


@pytest.mark.parametrize("lanes", [1, 4, 8])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_number_in_every_lane(count, lanes):
    values = np.arange(3 * count, dtype=np.float32) + 0.5
    out = _compat.runtime_tensor(np.zeros(len(values) * lanes, np.float32))
    built(count, lanes)["splats"](_compat.runtime_tensor(values), out)
    np.testing.assert_array_equal(out.numpy(), np.repeat(values, lanes))


@pytest.mark.skipif(HOST.lanes < 8, reason="the host has no 8-lane vectors")
def test_four_numbers_are_one_load():
    assembly = _compat.inspect_asm(built(4, 8))
    assert "vbroadcastf128" in assembly
    assert "vbroadcastss\t4(" not in assembly


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_offsets_up_to_the_largest(count):
    """Also those whose half of a pair has its highest bit but the sign set."""
    numbers = np.array([0, 2**31 - 1, 2**30, 7, 65536, 1], np.int32)[: 2 * count]
    numbers = np.resize(numbers, 2 * count).astype(np.int32)
    with _compat.prim_func("offsets") as builder:
        source = _compat.arg("source", (2 * count,), "int32")
        out = _compat.arg("out", (2 * count,), "int64")
        with T.serial(0, 2) as i:
            for place, offset in enumerate(load_offsets(source, i * count, count)):
                T.buffer_store(out, offset, [i * count + place])
    found = _compat.runtime_tensor(np.zeros(2 * count, np.int64))
    module = _compat.build_module(builder.get(), HOST.tvm_target())
    module["offsets"](_compat.runtime_tensor(numbers), found)
    np.testing.assert_array_equal(found.numpy(), numbers)
