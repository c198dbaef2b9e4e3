"""Panels and blocks: they cover what is computed, evenly, and never cross a group's border."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.geometry_panels import (
    BlockedPanels,
    CopiedRow,
    channel_sizes,
    even_share,
    panel_rows,
)

SIZES = st.integers(1, 40)


@given(st.integers(1, 300), st.integers(-1, 400))
def test_shares_are_even(total, most):
    share = even_share(total, most)
    parts = -(-total // share)
    assert 1 <= share <= max(min(most, total), 1)
    assert share * parts - total < parts


@given(SIZES, SIZES, st.integers(1, 60), st.sampled_from([4, 8, 16]), st.booleans())
def test_panels_cover_the_output_evenly(oh, ow, vectors, lanes, flat):
    rows = panel_rows(oh, ow, lanes, flat, vectors)
    panels = -(-oh // rows)
    assert 1 <= rows <= oh
    assert rows * panels - oh < panels
    used = -(-rows * ow // lanes) if flat else rows * -(-ow // lanes)
    assert rows == 1 or used <= vectors


def test_a_panel_without_a_limit_is_the_whole_map():
    assert panel_rows(13, 5, 8, True, 0) == panel_rows(13, 5, 8, False, 0) == 13


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [((4, 0, 0), (4, 6, 5)), ((8, 9, 7), (6, 6, 5)), ((2, 4, 3), (2, 4, 3))],
)
def test_blocks_stay_within_their_group(limits, sizes):
    shape = ConvShape(1, 10, 8, 8, 12, 3, groups=2)
    rows_at_once, k_block, channel_block = limits
    plan = LayerPlan("", shape, 1.0, "dense_direct", 0, 0, k_block, channel_block, rows_at_once)
    assert channel_sizes(plan) == sizes


@given(st.integers(-9, 9), st.integers(1, 4), SIZES, SIZES)
def test_a_copied_row_has_all_of_the_map_and_nothing_else(first, step, length, width):
    row = CopiedRow(first, step, length, width)
    inside = [i for i in range(length) if 0 <= first + i * step < width]
    assert list(range(row.start, row.stop)) == inside
    assert 0 <= row.start <= row.stop <= length


def test_what_tasks_are_made_of():
    shape = ConvShape(2, 10, 9, 20, 14, 3, (1,) * 4, 2, (2, 1), (2, 1))
    made = BlockedPanels(shape, 8, 2, 2, 3, 4)
    assert (shape.oh, made.panels, made.row_vectors) == (4, 2, 3)
    assert made.phase_rows == 2 + 2  # the filter spans five rows, two steps below the first
    assert (made.channels, made.per_group) == (5, 7)
    assert (made.k_blocks, made.slices, made.channel_blocks) == (3, 2, 2)
    assert made.tasks == 2 * 2 * 3 * 2
