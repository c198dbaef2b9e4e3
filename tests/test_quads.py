"""Pixels of a row into vectors over tiles: compiled, and compared with plain indexing."""

import numpy as np
import pytest

from tvm_sparsewino import _compat
from tvm_sparsewino._compat import T
from tvm_sparsewino.geometry import QUAD, round_up
from tvm_sparsewino.schedules.quads import take_apart, transpose


def run(name, inputs, outputs, emit):
    """Compile ``emit(x, store)``, run it on 0, 1, 2, ...: each lane tells where it came from."""
    with _compat.prim_func(name) as builder:
        x = _compat.arg("x", (inputs,), "float32")
        y = _compat.arg("y", (outputs,), "float32")

        def store(first, value, lanes):
            T.buffer_store(y, value, [_compat.ramp(first, 1, lanes)])

        emit(x, store)
    module = _compat.build_module(builder.get(), _compat.make_target({"kind": "llvm"}))
    result = _compat.runtime_tensor(np.full(outputs, np.nan, np.float32))
    module[name](_compat.runtime_tensor(np.arange(inputs, dtype=np.float32)), result)
    return result.numpy()


@pytest.mark.parametrize(
    ("m", "count", "lanes"),
    [
        (1, 1, 4),
        (2, 4, 4),
        (4, 6, 4),
        (3, 7, 4),
        (2, 4, 8),
        (4, 6, 8),
        (6, 8, 8),
        (4, 8, 16),
        (1, 3, 8),
        (5, 9, 8),
        (2, 2, 16),
        (8, 10, 4),
    ],
)
def test_take_apart(m, count, lanes):
    width = (lanes - 1) * m + round_up(count, QUAD)
    offsets = []

    def emit(x, store):
        def load_quad(offset):
            offsets.append(offset)
            return x[_compat.ramp(offset, 1, QUAD)]

        pixels = take_apart(load_quad, m, count, lanes)
        assert len(pixels) == count
        for i, pixel in enumerate(pixels):
            store(i * lanes, pixel, lanes)

    out = run("take_apart", width, count * lanes, emit).reshape(count, lanes)
    tiles = np.arange(lanes) * m
    np.testing.assert_array_equal(out, np.arange(count)[:, None] + tiles[None])
    assert len(offsets) == len(set(offsets)), "a quad was loaded twice"
    assert max(offsets) + QUAD <= width


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_transpose(lanes, wanted):
    def emit(x, store):
        rows = [_compat.bind(x[_compat.ramp(i * lanes, 1, lanes)]) for i in range(QUAD)]
        columns = transpose(rows, lanes, wanted)
        assert len(columns) == wanted
        for i, column in enumerate(columns):
            store(i * lanes, column, lanes)

    out = run("transpose", QUAD * lanes, wanted * lanes, emit).reshape(wanted, -1, QUAD)
    x = np.arange(QUAD * lanes, dtype=np.float32).reshape(QUAD, -1, QUAD)
    np.testing.assert_array_equal(out, x.transpose(2, 1, 0)[:wanted])
