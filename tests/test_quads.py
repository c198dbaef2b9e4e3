"""Pixels of a row into vectors over tiles: compiled, and compared with plain indexing."""

import numpy as np
import pytest

from tvm_sparsewino import _compat
from tvm_sparsewino._compat import T
from tvm_sparsewino.geometry import QUAD, round_up
from tvm_sparsewino.schedules.quads import lane_order, take_apart, transpose, weave


def run_kernel(name, inputs, outputs, emit):
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


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("m", range(1, 9))
def test_lane_order_has_every_tile_once(m, lanes):
    assert sorted(lane_order(m, lanes)) == list(range(lanes))


GAP = 5  # pixels between runs of tiles, besides those that a tile reads beyond its own


@pytest.mark.parametrize(
    ("lanes", "run"), [(4, 1), (4, 2), (4, 4), (8, 1), (8, 2), (8, 8), (16, 1), (16, 4), (16, 16)]
)
@pytest.mark.parametrize(
    ("m", "count"), [(1, 1), (1, 3), (2, 2), (2, 4), (2, 5), (3, 7), (4, 6), (4, 8), (5, 9), (6, 8)]
)
def test_take_apart(m, count, lanes, run):
    """Runs of tiles lie apart; nothing is read beyond the last whole quad of a run's last tile."""
    reach = m * (run - 1) + round_up(count, QUAD)

    def start(tile):
        return tile // run * (reach + GAP) + tile % run * m

    def emit(x, store):
        def load(tile, pixel, width):
            assert m * (tile % run) + pixel + width <= reach
            return x[_compat.ramp(start(tile) + pixel, 1, width)]

        pixels = take_apart(load, m, count, lanes, run)
        assert len(pixels) == count
        for i, pixel in enumerate(pixels):
            store(i * lanes, pixel, lanes)

    width = start(lanes - 1) + reach
    out = run_kernel("take_apart", width, count * lanes, emit).reshape(count, lanes)
    tiles = np.array([start(tile) for tile in lane_order(m, lanes)])
    np.testing.assert_array_equal(out, np.arange(count)[:, None] + tiles[None])


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("m", [*range(1, 7), 8])
def test_weave_puts_pixels_in_the_order_of_the_map(m, lanes):
    def emit(x, store):
        columns = [_compat.bind(x[_compat.ramp(j * lanes, 1, lanes)]) for j in range(m)]
        woven = weave(columns, lanes)
        assert len(woven) == m
        for i, vector in enumerate(woven):
            store(i * lanes, vector, lanes)

    out = run_kernel("weave", m * lanes, m * lanes, emit)
    order = lane_order(m, lanes)
    expected = [j * lanes + order.index(tile) for tile in range(lanes) for j in range(m)]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_transpose(lanes, wanted):
    def emit(x, store):
        rows = [_compat.bind(x[_compat.ramp(i * lanes, 1, lanes)]) for i in range(QUAD)]
        columns = transpose(rows, lanes, wanted)
        assert len(columns) == wanted
        for i, column in enumerate(columns):
            store(i * lanes, column, lanes)

    out = run_kernel("transpose", QUAD * lanes, wanted * lanes, emit).reshape(wanted, -1, QUAD)
    x = np.arange(QUAD * lanes, dtype=np.float32).reshape(QUAD, -1, QUAD)
    np.testing.assert_array_equal(out, x.transpose(2, 1, 0)[:wanted])
