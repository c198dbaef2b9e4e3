"""Memory of the depthwise convolution: every tap of every pixel is where the formulas say."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.geometry_depthwise import depthwise_layout, is_depthwise, register_rows

SIZES = st.integers(1, 30)
STEPS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def layout(h, w, r, columns, stride, dilation, vectors=0, lanes=4, channels=0):
    padding = (2 * max(r, columns),) * 4
    shape = ConvShape(2, 6, h, w, 12, r, padding, 6, stride, dilation, columns)
    return depthwise_layout(LayerPlan("", shape, 1.0, "dense_direct", 0, vectors, channels), lanes)


@given(SIZES, SIZES, st.integers(1, 4), st.integers(1, 4), STEPS, STEPS, SIZES)
def test_what_a_panel_reads_lies_in_its_plane(h, w, r, columns, stride, dilation, vectors):
    made = layout(h, w, r, columns, stride, dilation, vectors)
    shape = made.shape
    assert (made.panels - 1) * made.rows < shape.oh <= made.panels * made.rows
    last = (made.row_vectors - 1) * made.lanes
    for i, j in itertools.product(range(r), range(columns)):
        row = (made.rows - 1) * stride[0] + i * dilation[0]
        assert made.tap_offset(row, j) + last + made.lanes <= made.plane_stride


@pytest.mark.parametrize(
    ("stride", "dilation", "r", "columns"),
    [
        ((1, 1), (1, 1), 3, 3),
        ((2, 2), (1, 1), 3, 3),
        ((2, 3), (1, 2), 3, 4),
        ((3, 1), (2, 1), 2, 5),
    ],
)
def test_taps_are_where_the_rows_are(stride, dilation, r, columns):
    """Rows copied by hand as the module's docstring says, read back tap by tap."""
    made = layout(9, 11, r, columns, stride, dilation, 6)
    (down, right), shape = stride, made.shape
    pad = shape.padding[0]
    image = np.pad(np.arange(1.0, 100).reshape(9, 11), ((pad, 40), (pad, 40)))
    for panel in range(made.panels):
        first = panel * made.rows
        plane = np.zeros(made.plane_stride)
        for phase, index, remainder in itertools.product(
            range(made.phases[0]), range(made.phase_rows), range(made.phases[1])
        ):
            source = image[(first + index) * down + phase, remainder::right][: made.phase_stride]
            at = (phase * made.phase_rows + index) * made.row_stride
            at += remainder * made.phase_stride
            plane[at : at + len(source)] = source
        rows = range(min(made.rows, shape.oh - first))
        taps = itertools.product(rows, range(shape.ow), range(r), range(columns))
        for y, x, i, j in taps:
            want = image[(first + y) * down + i * dilation[0], x * right + j * dilation[1]]
            got = plane[made.tap_offset(y * down + i * dilation[0], j) + x]
            assert got == want


def test_limits():
    """Outputs of a task become input channels, at least one; planes no more than those."""
    assert layout(9, 9, 3, 3, (1, 1), (1, 1), channels=5).channels == 2
    assert layout(9, 9, 3, 3, (1, 1), (1, 1), channels=1).channels == 1
    whole = layout(9, 9, 3, 3, (1, 1), (1, 1))
    assert (whole.channels, whole.planes, whole.panels, whole.tasks) == (6, 6, 1, 2)


@pytest.mark.parametrize(
    ("c", "k", "groups", "expected"),
    [(6, 6, 6, True), (6, 18, 6, True), (6, 24, 6, False), (6, 6, 3, False), (1, 3, 1, True)],
)
def test_what_is_depthwise(c, k, groups, expected):
    assert is_depthwise(ConvShape(1, c, 9, 9, k, 3, (1,) * 4, groups)) is expected


@pytest.mark.parametrize("registers", [16, 32])
def test_a_register_block_has_room_for_its_operands(registers):
    """Sums, the taps of a 3x3 filter and one input; more registers are made use of."""
    rows = register_rows(registers)
    assert rows + 3 * 3 + 1 <= registers
    assert registers == 16 or rows > register_rows(16)
