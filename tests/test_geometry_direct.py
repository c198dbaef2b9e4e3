"""Memory of the direct convolution: every tap of every pixel is where the formulas say."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.geometry import register_tiles
from tvm_sparsewino.geometry_direct import choose_kind, direct_layout

SIZES = st.integers(1, 40)


def layout(h, w, r=3, padding=1, lanes=8, vectors=0, stride=1, dilation=1, rows=4, columns=0):
    paddings = (padding,) * 4
    shape = ConvShape(1, 5, h, w, 10, r, paddings, 1, stride, dilation, columns)
    plan = LayerPlan("", shape, 1.0, "dense_direct", 0, vectors, 4, 2, rows)
    return direct_layout(plan, lanes)


@pytest.mark.parametrize(
    ("width", "kind"),
    [
        *((56, "plain"), (224, "plain"), (200, "plain"), (201, "plain")),
        *((28, "shifted"), (14, "shifted"), (7, "shifted"), (65, "shifted")),
    ],
)
def test_kinds(width, kind):
    def shape(**steps):
        return ConvShape(1, 1, 8, width, 1, 3, (1,) * 4, **steps)

    assert choose_kind(shape(), 8) == kind
    assert choose_kind(shape(stride=(2, 1)), 8) == kind
    assert choose_kind(shape(stride=(1, 2)), 8) == "shifted"
    assert choose_kind(ConvShape(1, 1, 8, width, 1, 1), 8) == "tiled"


STEPS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(SIZES, SIZES, st.sampled_from([2, 3, 5]), st.integers(1, 4), STEPS, STEPS, SIZES)
def test_what_a_panel_reads_lies_in_its_scratch(h, w, r, columns, stride, dilation, vectors):
    """The last vector of the last tap ends before the channel does, so nothing runs out."""
    padding = 2 * max(r, columns)
    made = layout(h, w, r, padding, 4, vectors, stride, dilation, columns=columns)
    last = (made.vectors - 1) * made.lanes
    if not made.is_flat:
        last = (made.rows - 1) * made.row_stride + (made.row_vectors - 1) * made.lanes
    taps = itertools.product(range(r), range(made.shape.s))
    reach = max(made.tap_offset(i, j) for i, j in taps)
    assert last + reach + made.lanes <= made.rows_stride + made.lanes
    assert made.rows_stride // 16 % 2 == 1


@given(SIZES, SIZES, SIZES, st.sampled_from([4, 8, 16]), st.integers(1, 2))
def test_tiles_lie_side_by_side(h, w, vectors, lanes, stride):
    """No two tiles of one panel share memory, and none runs out of the scratch."""
    made = layout(h, w, 1, 0, lanes, vectors, stride)
    ends = 0
    for first, tiles, width in register_tiles(made.vectors, made.rows_at_once, 16):
        for vector in range(first, first + tiles * width, width):
            assert vector * made.vector_stride >= ends
            ends = vector * made.vector_stride + made.channel_block * made.channel_stride(width)
    assert ends <= made.scratch_size
    assert made.from_map == (stride == 1)
    assert made.staging_size >= (lanes if made.from_map else made.vectors * lanes)


@given(SIZES, SIZES, SIZES, st.sampled_from([4, 8, 16]))
def test_sums_lie_side_by_side(h, w, vectors, lanes):
    made = layout(h, w, 3, 1, lanes, vectors)
    seen = set()
    for first, tiles, width in register_tiles(made.vectors, made.rows_at_once, 16):
        for vector in range(first, first + tiles * width, width):
            for index in range(made.slices):
                start = made.sums_offset(vector, width, index)
                places = set(range(start, start + made.rows_at_once * width * lanes))
                assert not places & seen
                seen |= places
    assert seen == set(range(made.sums_size))


@pytest.mark.parametrize(
    ("h", "w", "stride", "dilation", "columns"),
    [
        (9, 16, 1, 1, 3),
        (9, 16, 1, 2, 3),
        (9, 13, 1, 1, 3),
        (11, 13, 2, 1, 3),
        (12, 17, 3, 2, 3),
        (9, 15, 2, 3, 3),
        (11, 15, (2, 1), (1, 2), 4),
        (11, 18, (2, 1), (2, 1), 3),
        (13, 15, (3, 2), (1, 2), 2),
        (11, 15, (2, 3), (1, 2), 1),
    ],
)
def test_taps_are_where_the_rows_are(h, w, stride, dilation, columns):
    """Rows copied by hand as the module's docstring says, read back tap by tap."""
    made = layout(h, w, 3, 1, 8, 9, stride, dilation, columns=columns)
    (down, right), (under, beside) = made.shape.stride, made.shape.dilation
    image = np.pad(np.arange(1.0, h * w + 1).reshape(h, w), ((1, 20), (1, 20)))
    for panel in range(made.panels):
        first = panel * made.rows
        rows = min(made.rows, made.shape.oh - first)
        scratch = np.zeros(made.rows_stride + made.lanes)
        for copy, position in itertools.product(
            range(made.copies), range(made.phases * made.phase_rows)
        ):
            phase, index = divmod(position, made.phase_rows)
            source = image[(first + index) * down + phase]
            start = copy * beside if made.is_flat else 0
            at = copy * made.copy_stride + position * made.row_stride
            row = source[start :: right if made.is_flat else 1][: made.row_stride]
            scratch[at : at + len(row)] = row
        for y, x in itertools.product(range(rows), range(made.shape.ow)):
            at = y * made.row_stride + x
            for i, j in itertools.product(range(3), range(columns)):
                want = image[(first + y) * down + i * under, x * right + j * beside]
                assert scratch[at + made.tap_offset(i, j)] == want
