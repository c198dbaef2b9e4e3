"""Padding, tile, panel and scratch arithmetic, as properties over random shapes."""

import dataclasses
import re
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.geometry import (
    CACHE_LINE,
    Scratch,
    as_padding,
    block_slices,
    ceil_div,
    check_shape,
    kernel_layout,
    make_panels,
    register_tiles,
    round_up,
    winograd_refusal,
)

BASE = ConvShape(1, 4, 8, 8, 6, 3, (1, 1, 1, 1), 2)


@st.composite
def shapes(draw, largest=40):
    r = draw(st.integers(1, 7))
    padding = tuple(draw(st.integers(0, r - 1)) for _ in range(4))
    h, w = draw(st.integers(1, largest)), draw(st.integers(1, largest * 4))
    groups = draw(st.integers(1, 4))
    c, k = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 9))
    shape = ConvShape(draw(st.integers(1, 3)), c, h, w, k, r, padding, groups)
    assume(shape.oh >= 1 and shape.ow >= 1)
    return shape


LANES = st.sampled_from([4, 8, 16])


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_rounding(a, b):
    assert (ceil_div(a, b) - 1) * b < a <= ceil_div(a, b) * b
    assert round_up(a, b) % b == 0
    assert a <= round_up(a, b) < a + b


def test_padding_forms():
    assert as_padding(2) == (2, 2, 2, 2)
    assert as_padding((1,)) == (1, 1, 1, 1)
    assert as_padding((1, 2)) == (1, 2, 1, 2)
    assert as_padding([1, 2, 3, 4]) == (1, 2, 3, 4)
    assert as_padding(np.array([0, 1])) == (0, 1, 0, 1)


@pytest.mark.parametrize("padding", [-1, (), (1, 2, 3), (0, 0, 0, -1), (1, 2, 3, 4, 5)])
def test_padding_that_is_refused(padding):
    with pytest.raises(ShapeError, match=r"padding must be 1, 2 or 4 numbers >= 0, got"):
        as_padding(padding)


@pytest.mark.parametrize("padding", [1.5, (0.5, 1), ("same",), None])
def test_padding_that_is_no_integer(padding):
    with pytest.raises(ShapeError, match="padding must be integers, got"):
        as_padding(padding)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[({name: 0}, "every dimension must be at least 1") for name in "nchwkr"],
        ({"groups": 0}, "every dimension must be at least 1"),
        ({"c": 5}, "5>6 channels do not divide into 2 groups"),
        ({"k": 7}, "4>7 channels do not divide into 2 groups"),
        ({"h": 2, "padding": (0, 1, 0, 1)}, "a 2x8 map is smaller than the filter 3"),
        ({"w": 1, "padding": (1, 0, 1, 1)}, "a 8x1 map is smaller than the filter 3"),
        ({"columns": 12}, "a 8x8 map is smaller than the filter 3x12"),
        ({"dilation": 5}, "a 8x8 map is smaller than the filter 3"),
        ({"padding": (1, 1, -1, 1)}, "padding .* must be four numbers >= 0"),
        ({"padding": (1, 1)}, "must be four numbers >= 0"),
        ({"h": 2**15, "w": 2**14}, "too large for 32-bit indices"),
        ({"k": 2**26}, "too large for 32-bit indices"),
    ],
)
def test_shapes_that_are_refused(change, message):
    check_shape(BASE)
    shape = dataclasses.replace(BASE, **change)
    with pytest.raises(ShapeError, match=message):
        check_shape(shape)
    with pytest.raises(ShapeError, match=message):
        kernel_layout(LayerPlan("layer", shape, 1.0, "sparse_winograd", 2, 1), 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"padding": (1, 3, 1, 1)}, r"its padding \(1, 3, 1, 1\) is not less"),
        ({"stride": (1, 2)}, "its stride is 1x2"),
        ({"dilation": 2}, "its dilation is 2x2"),
        ({"columns": 1}, "its filter is 3x1, not square"),
    ],
)
def test_shapes_that_winograd_kernels_refuse(change, message):
    assert not winograd_refusal(BASE)
    shape = dataclasses.replace(BASE, **change)
    check_shape(shape)
    assert re.search(message, winograd_refusal(shape))
    with pytest.raises(ShapeError, match=f"no Winograd kernel takes the layer: {message}"):
        kernel_layout(LayerPlan("layer", shape, 1.0, "sparse_winograd", 2, 1), 8)


@given(shapes(), st.integers(1, 6), LANES, st.integers(0, 16))
def test_every_tile_is_computed_once(shape, m, lanes, vectors):
    """Decodes panels the way the kernels do and counts the tiles whose outputs are kept."""
    panels = make_panels(shape, m, lanes, vectors)
    assert (panels.tiles_y, panels.tiles_x) == (ceil_div(shape.oh, m), ceil_div(shape.ow, m))
    assert panels.tiles <= max(vectors, 1) * lanes
    if panels.segments > 1:
        assert panels.segment_tiles % lanes == 0
        assert panels.rows == 1
    if panels.cuts_rows:
        assert panels.segments == 1
        assert panels.tiles % lanes == 0
    else:
        assert panels.tiles == panels.rows * panels.segment_tiles
    seen = Counter()
    for panel in range(panels.count):
        live, touched = 0, set()
        for place in range(panel * panels.tiles, (panel + 1) * panels.tiles):
            number, tile = divmod(place, panels.segment_tiles)
            touched.add(number)
            if number < panels.total_rows:
                live += 1
                row, index = divmod(number, panels.segments)
                x = index * panels.segment_tiles + tile
                if x < panels.tiles_x:
                    seen[(*divmod(row, panels.tiles_y), x)] += 1
        assert live
        assert len(touched) <= panels.rows
    tiles = product(range(shape.n), range(panels.tiles_y), range(panels.tiles_x))
    assert seen == Counter(tiles)


@given(shapes(), st.integers(1, 6), LANES, st.integers(0, 16))
def test_panels_have_room_for_whole_vectors(shape, m, lanes, vectors):
    panels = make_panels(shape, m, lanes, vectors)
    assert panels.vectors * lanes >= panels.tiles > (panels.vectors - 1) * lanes
    assert panels.stride == panels.vectors * lanes


@given(
    coordinates=st.integers(1, 16),
    channels=st.integers(1, 20),
    block=st.integers(1, 24),
    stride=st.integers(1, 6).map(lambda v: v * 4),
    first=st.integers(0, 2),
)
def test_scratch_rows_never_overlap(coordinates, channels, block, stride, first):
    scratch = Scratch(coordinates, channels, block, stride, coordinates + first, first)
    taken = np.zeros(scratch.size, int)
    for coordinate, channel in product(range(coordinates), range(channels)):
        start = coordinate * scratch.coordinate_stride + scratch.channel_offset(channel)
        assert start + stride <= scratch.size
        taken[start : start + stride] += 1
    assert taken.max() == 1
    assert taken.sum() == coordinates * channels * stride
    assert scratch.coordinate_stride % (2 * CACHE_LINE) == CACHE_LINE
    offsets = scratch.channel_offset(np.arange(channels))
    assert offsets.tolist() == [scratch.channel_offset(c) for c in range(channels)]


@given(shapes(), st.integers(0, 40), st.integers(1, 5))
def test_slices_of_every_block_fit(shape, k_block, width):
    """Slices of ``width`` rows that stay inside of a group and a block, counted one by one."""
    k_block = min(k_block or shape.k, shape.k)
    most = 0
    for start in range(0, shape.k, k_block):
        rows = [k // (shape.k // shape.groups) for k in range(shape.k)][start : start + k_block]
        needed = sum(ceil_div(count, width) for count in Counter(rows).values())
        most = max(most, needed)
        assert ceil_div(len(rows), width) <= most
    assert block_slices(shape, k_block, width) == most


# Whether blocks run in parallel, and among how many threads whole panels are shared out first.
HOW = st.sampled_from([(False, 0), (True, 0), (True, 2), (True, 3)])


@given(shapes(), st.integers(1, 6), LANES, st.integers(0, 50), st.integers(0, 12), HOW)
def test_layout_of_a_plan(shape, m, lanes, k_block, channel_block, how):
    plan = LayerPlan("c", shape, 0.5, "sparse_winograd", m, 3, k_block, channel_block, 2)
    split_k, sharers = how
    plan = dataclasses.replace(plan, split_k=split_k, sharers=sharers)
    layout = kernel_layout(plan, lanes)
    assert (layout.k_blocks - 1) * layout.k_block < shape.k <= layout.k_blocks * layout.k_block
    assert layout.k_block == min(k_block or shape.k, shape.k)
    kept = layout.k_blocks if sharers else 1  # blocks whose products are in memory
    assert layout.dummy_row == kept * layout.k_block
    assert layout.first_row(layout.k_blocks - 1) == (kept - 1) * layout.k_block
    assert layout.is_shared == (split_k or layout.k_blocks == 1)
    if layout.is_shared:
        assert layout.v.channels == layout.product.channels == max(shape.c, layout.dummy_row + 1)
    else:
        assert layout.v.channels == shape.c
        assert layout.product.channels == layout.k_block + 1
    assert layout.v.coordinates == layout.product.coordinates == (m + shape.r - 1) ** 2
    assert layout.v.block == min(channel_block or shape.c, layout.v.channels)
    assert layout.v.stride == layout.product.stride == layout.panels.stride


@given(shapes(), st.integers(1, 6), LANES, st.integers(0, 12))
def test_products_take_the_place_of_inputs_that_were_used(shape, m, lanes, channel_block):
    """Rows of products of a coordinate meet no inputs of it or of any coordinate behind it."""
    plan = LayerPlan("c", shape, 0.5, "sparse_winograd", m, 2, 0, channel_block, 2)
    layout = kernel_layout(plan, lanes)
    v, made = layout.v, layout.product
    assert v.size == made.size
    steps = np.arange(v.coordinates) * v.coordinate_stride
    read = steps[:, None] + v.channel_offset(np.arange(shape.c))
    for i in range(v.coordinates):
        written = made.channel_offset(np.arange(shape.k + 1)) + i * made.coordinate_stride
        assert not np.isin(written, read[i:]).any()
        assert written.min() >= 0 and written.max() + made.stride <= made.size
        assert read[i].max() + v.stride <= v.size


@given(st.integers(1, 500), st.integers(1, 16), st.sampled_from([16, 32]))
def test_register_tiles_cover_the_vectors_and_fit(vectors, rows, registers):
    runs = register_tiles(vectors, rows, registers)
    found = [v for first, tiles, width in runs for v in range(first, first + tiles * width)]
    assert found == list(range(vectors))
    assert len(runs) <= 2
    for _, tiles, width in runs:
        used = width + 2 if rows == 1 else rows * width + width + 1
        assert tiles and (width == 1 or used <= registers)
