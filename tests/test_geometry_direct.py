"""Memory of the direct convolution: every tap of every pixel is where the formulas say."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.geometry_direct import choose_copies, direct_layout, output_size, panel_rows

SIZES = st.integers(1, 40)


def layout(h, w, r=3, padding=1, lanes=8, vectors=0, stride=1, dilation=1, rows=4):
    shape = ConvShape(1, 5, h, w, 10, r, (padding,) * 4)
    plan = LayerPlan("", shape, 1.0, "dense_direct", 0, vectors, 4, 2, rows)
    return direct_layout(plan, lanes, stride, dilation)


@pytest.mark.parametrize(
    ("width", "copies"), [(56, 1), (224, 1), (28, 3), (14, 3), (7, 3), (200, 1), (201, 1), (65, 3)]
)
def test_copies(width, copies):
    shape = ConvShape(1, 1, 8, width, 1, 3, (1,) * 4)
    assert choose_copies(shape, 8) == copies
    assert choose_copies(shape, 8, stride=2) == 3


@given(SIZES, SIZES, st.integers(1, 60), st.sampled_from([4, 8, 16]), st.sampled_from([1, 3]))
def test_panels_cover_the_output_evenly(oh, ow, vectors, lanes, copies):
    rows = panel_rows(oh, ow, lanes, copies, vectors)
    panels = -(-oh // rows)
    assert 1 <= rows <= oh
    assert rows * panels - oh < panels
    used = -(-rows * ow // lanes) if copies > 1 else rows * -(-ow // lanes)
    assert rows == 1 or used <= vectors


@given(SIZES, SIZES, st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 3]), SIZES)
def test_what_a_panel_reads_lies_in_its_scratch(h, w, r, stride, vectors):
    """The last vector of the last tap ends before the channel does, so nothing runs out."""
    assume(min(h, w) + 2 * (r // 2) >= r)
    made = layout(h, w, r, r // 2, 4, vectors, stride)
    last = (made.vectors - 1) * made.lanes
    if not made.is_flat:
        last = (made.rows - 1) * made.row_stride + (made.row_vectors - 1) * made.lanes
    reach = max(made.tap_offset(i, j) for i, j in itertools.product(range(r), repeat=2))
    assert last + reach + made.lanes <= made.channel_stride + made.lanes
    assert made.channel_stride // 16 % 2 == 1


@pytest.mark.parametrize(
    ("h", "w", "stride", "dilation"),
    [(9, 16, 1, 1), (9, 16, 1, 2), (9, 13, 1, 1), (11, 13, 2, 1), (12, 17, 3, 2), (9, 15, 2, 3)],
)
def test_taps_are_where_the_rows_are(h, w, stride, dilation):
    """Rows copied by hand as the module's docstring says, read back tap by tap."""
    made = layout(h, w, 3, 1, 8, 9, stride, dilation)
    image = np.pad(np.arange(1.0, h * w + 1).reshape(h, w), ((1, 20), (1, 20)))
    for panel in range(made.panels):
        first = panel * made.rows
        rows = min(made.rows, made.oh - first)
        scratch = np.zeros(made.channel_stride + made.lanes)
        for copy, position in itertools.product(
            range(made.copies), range(made.phases * made.phase_rows)
        ):
            phase, index = divmod(position, made.phase_rows)
            source = image[(first + index) * stride + phase]
            start = copy * dilation if made.is_flat else 0
            step = stride if made.is_flat else 1
            at = copy * made.copy_stride + position * made.row_stride
            row = source[start::step][: made.row_stride]
            scratch[at : at + len(row)] = row
        for y, x in itertools.product(range(rows), range(made.ow)):
            at = y * (made.ow if made.is_flat else made.row_stride) + x
            for i, j in itertools.product(range(3), repeat=2):
                want = image[(first + y) * stride + i * dilation, x * stride + j * dilation]
                assert scratch[at + made.tap_offset(i, j)] == want


def test_output_size_is_the_shapes():
    shape = ConvShape(1, 1, 9, 11, 1, 3, (0, 1, 2, 0))
    assert output_size(shape) == (shape.oh, shape.ow)
    assert output_size(shape, 2, 2) == (4, 4)
