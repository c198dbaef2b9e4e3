"""Memory of the sparse direct kernel, checked by filling it the slow way."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.geometry_sparse import choose_kind, register_tile, sparse_layout, thinned

LANES, REGISTERS = st.sampled_from([4, 8, 16]), st.sampled_from([16, 32])
SMALL = st.integers(1, 4)


@st.composite
def layouts(draw):
    pads = tuple(draw(st.integers(0, 5)) for _ in range(4))
    steps = {
        "stride": (draw(SMALL), draw(SMALL)),
        "dilation": (draw(SMALL), draw(SMALL)),
        "columns": draw(SMALL),
    }
    size = (draw(st.integers(1, 20)), draw(st.integers(1, 60)))
    shape = ConvShape(1, 2, *size, 5, draw(SMALL), pads, **steps)
    assume(shape.oh > 0 and shape.ow > 0)
    vectors, rows = draw(st.integers(0, 20)), draw(st.integers(1, 4))
    plan = LayerPlan("", shape, 1.0, "sparse_direct", 0, vectors, 0, 0, rows)
    return sparse_layout(plan, draw(LANES))


def filled(layout, x, row):
    """One channel's scratch for a panel that starts at ``row``, NaN where nothing is written."""
    memory = np.full(layout.channel_stride, np.nan)
    down, across = layout.vertical, layout.horizontal
    for py, phase in enumerate(down.phases):
        for px in range(len(across.phases)):
            plane = (py * len(across.phases) + px) * layout.plane_stride
            part = across.row(px)
            end = plane + layout.phase_rows * layout.row_stride
            memory[end : end + max(across.span(px) - layout.row_stride, 0)] = 0
            for q in range(layout.phase_rows):
                base = plane + q * layout.row_stride
                memory[base : base + layout.row_stride] = 0
                y = (row + q) * down.stride + phase - down.before
                if 0 <= y < len(x):
                    for place in range(part.start, part.stop):
                        memory[base + place] = x[y, part.first + place * part.step]
    return memory


@given(layouts(), st.data())
def test_every_tap_of_every_pixel_lies_where_the_offset_says(layout, data):
    """Rows that share their zeros never share anything else."""
    s = layout.shape
    if layout.is_flat:
        return
    x = np.random.default_rng(0).uniform(1, 2, (s.h, s.w))
    top, left, bottom, right = s.padding
    padded = np.pad(x, ((top, bottom), (left, right)))
    row = data.draw(st.integers(0, s.oh - layout.rows))
    memory = filled(layout, x, row)
    y, x = np.mgrid[: layout.rows, : s.ow]
    pixels = y * layout.row_stride + x
    for i in range(s.r):
        for j in range(s.s):
            want = padded[
                (row + y) * s.stride[0] + i * s.dilation[0], x * s.stride[1] + j * s.dilation[1]
            ]
            np.testing.assert_array_equal(memory[pixels + layout.tap_offset(i, j)], want)


@given(layouts(), REGISTERS)
def test_tiles_cover_every_pixel_and_fit_the_registers(layout, registers):
    tile = register_tile(layout, registers)
    spare = 2 if layout.rows_at_once <= 2 else 4
    assert tile.vectors * layout.rows_at_once <= registers - spare
    assert tile.is_buffered == (layout.line < layout.lanes)
    assert layout.panels * layout.rows >= layout.total_rows > (layout.panels - 1) * layout.rows
    if tile.lines:
        assert tile.lines <= layout.lines <= tile.lines * tile.count
        floats = tile.vectors * layout.lanes
        assert floats >= (tile.lines if not tile.is_buffered else 1) * layout.line
    else:
        assert tile.vectors * layout.lanes <= layout.reach
        parts, rest = divmod(tile.count, layout.lines)
        assert not rest and parts * tile.vectors * layout.lanes >= layout.reach


def padded(width=14, lanes=16, **fields):
    shape = ConvShape(1, 4, 14, width, 4, 3, (1, 1, 1, 1), **fields)
    return sparse_layout(LayerPlan("", shape, 1.0, "sparse_direct"), lanes)


def test_rows_share_the_zeros_between_them():
    assert padded().row_stride == 15
    assert padded(stride=2).row_stride == 8
    assert padded(stride=2).vertical.phases == (0, 1)
    assert padded(columns=1).row_stride == 16


def test_rows_begin_with_whole_vectors_where_enough_columns_gain():
    assert padded(lanes=8).row_stride == 16
    assert padded(lanes=8, columns=4).row_stride == 15
    assert padded(width=28, lanes=8, stride=2).row_stride == 16
    assert padded(width=9, lanes=8, stride=2).row_stride == 5


def test_where_inputs_are_read():
    alone = ConvShape(1, 4, 12, 4, 4, 1)
    assert choose_kind(alone, 8) == "map"
    assert choose_kind(alone, 64) == "planes"
    assert choose_kind(ConvShape(1, 4, 7, 7, 4, 1), 8) == "runs"
    for other in (
        ConvShape(1, 4, 12, 4, 4, 1, (0, 0, 1, 0)),
        ConvShape(1, 4, 12, 4, 4, 1, stride=2),
        ConvShape(1, 4, 12, 4, 4, 1, columns=2),
    ):
        assert choose_kind(other, 8) == "planes"


def test_pixels_that_a_strided_filter_of_one_tap_reads_are_a_map():
    shape = ConvShape(2, 4, 13, 24, 6, 1, stride=(2, 3), dilation=2)
    layout = sparse_layout(LayerPlan("", shape, 1.0, "sparse_direct"), 8)
    assert layout.is_thinned and layout.step == (2, 3)
    assert layout.shape == dataclasses.replace(shape, h=7, w=8, stride=(1, 1))
    assert (layout.shape.oh, layout.shape.ow) == (shape.oh, shape.ow)
    assert layout.kind == "runs"
    for other in (
        ConvShape(1, 4, 12, 4, 4, 1),
        ConvShape(1, 4, 12, 4, 4, 1, (0, 0, 1, 0), stride=2),
        ConvShape(1, 4, 12, 4, 4, 2, stride=2),
        ConvShape(1, 4, 4, 4, 4, 1, stride=2),
    ):
        assert thinned(other, 8) == other
        assert not sparse_layout(LayerPlan("", other, 1.0, "sparse_direct"), 8).is_thinned


@given(st.integers(4, 300), st.integers(0, 40), LANES, REGISTERS, st.integers(1, 4))
def test_runs_of_pixels_hold_every_pixel_in_whole_vectors(pixels, vectors, lanes, registers, rows):
    shape = ConvShape(1, 3, 1, pixels, 5, 1)
    layout = sparse_layout(
        LayerPlan("", shape, 1.0, "sparse_direct", 0, vectors, 0, 0, rows), lanes
    )
    assume(layout.kind == "runs")
    tile = register_tile(layout, registers)
    assert layout.reach % lanes == 0 and 0 <= layout.reach - layout.line < lanes
    assert layout.channel_stride >= layout.reach and layout.channel_stride % lanes == 0
    assert tile.count * tile.vectors * lanes >= layout.reach >= tile.vectors * lanes


def test_a_shape_that_no_kernel_takes():
    shape = ConvShape(1, 4, 2, 2, 4, 3)
    with pytest.raises(ShapeError, match="smaller than the filter 3"):
        sparse_layout(LayerPlan("", shape, 1.0, "sparse_direct"), 8)
