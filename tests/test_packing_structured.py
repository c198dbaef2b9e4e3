"""Weights packed by structure: back and forth without loss, well formed, and what it saves."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import weights

from tvm_sparsewino.config import STRUCTURES, ConvShape, LayerPlan
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.packing import pack, unpack
from tvm_sparsewino.packing_structured import STRUCTURED_FORMATS
from tvm_sparsewino.row_slices import first_input, row_slices
from tvm_sparsewino.structure import stored_values


def make_plan(structure, k=5, c=4, groups=1, **blocking):
    shape = ConvShape(1, c, 9, 9, k, 3, (1, 1, 1, 1), groups)
    plan = LayerPlan("layer", shape, 0.5, "sparse_winograd", 2, 1, **blocking)
    return dataclasses.replace(plan, structure=structure)


@st.composite
def cases(draw):
    """A plan of any structure with weights of any other."""
    groups = draw(st.integers(1, 3))
    plan = make_plan(
        draw(st.sampled_from(sorted(STRUCTURED_FORMATS))),
        groups * draw(st.integers(1, 9)),
        groups * draw(st.integers(1, 6)),
        groups,
        k_block=draw(st.integers(0, 12)),
        channel_block=draw(st.integers(0, 9)),
        rows_at_once=draw(st.integers(1, 4)),
    )
    s, rng = plan.conv, np.random.default_rng(draw(st.integers(0, 99)))
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]))
    kind = draw(st.sampled_from(STRUCTURES))
    weight = weights(kind, rng, (16, s.k, s.c // s.groups), density, s.groups)
    return plan, weight, draw(st.sampled_from([4, 8, 16]))


def test_every_structure_has_a_format():
    assert set(STRUCTURED_FORMATS) == set(STRUCTURES) - {"unstructured"}


@given(cases())
def test_unpack_is_the_inverse(case):
    plan, weight, lanes = case
    packed = pack(weight, plan, lanes)
    np.testing.assert_array_equal(unpack(packed), weight, strict=True)
    assert all(a.ndim == 1 and a.size and a.flags.c_contiguous for a in packed.arrays)
    *integers, values = packed.arrays
    assert values.dtype == np.float32
    assert {a.dtype for a in integers} == {np.dtype(np.int32)}
    assert np.count_nonzero(values) == np.count_nonzero(weight)


@given(cases())
def test_every_row_is_written_once(case):
    plan, weight, lanes = case
    layout, rows = kernel_layout(plan, lanes), pack(weight, plan, lanes).arrays[1]
    spare = layout.product.channel_offset(layout.dummy_row)
    per_coordinate = len(weight) if plan.structure.startswith("rows") else 1
    rows = rows.reshape(layout.k_blocks, per_coordinate, -1)
    for block, written in enumerate(rows):
        members = np.arange(min(layout.k_block, plan.conv.k - block * layout.k_block))
        for of_coordinate in written:
            kept = of_coordinate[of_coordinate != spare]
            assert sorted(kept) == layout.product.channel_offset(members).tolist()


@given(cases())
def test_slices_are_whole_and_stay_in_their_group(case):
    plan, _, lanes = case
    layout = kernel_layout(plan, lanes)
    per_group = plan.conv.k // plan.conv.groups
    for block in range(layout.k_blocks):
        slices = row_slices(plan, layout, block)
        assert len(slices) == layout.slices
        assert all(len(members) <= plan.rows_at_once for members in slices)
        assert all(len({k // per_group for k in members}) <= 1 for members in slices)
    every = [k for b in range(layout.k_blocks) for m in row_slices(plan, layout, b) for k in m]
    assert every == list(range(plan.conv.k))
    firsts = [first_input(plan, k) for k in every]
    assert firsts == [k // per_group * (plan.conv.c // plan.conv.groups) for k in every]


@pytest.mark.parametrize("structure", sorted(STRUCTURED_FORMATS))
def test_an_exact_pattern_is_packed_without_padding(structure, rng):
    rows = {"rows2": 2, "rows4": 4}.get(structure, 1)
    plan = make_plan(structure, k=16, c=20, rows_at_once=rows)
    weight = weights(structure, rng)
    packed = pack(weight, plan, 8)
    nonzero = np.count_nonzero(weight)
    assert packed.arrays[3].size == nonzero == stored_values(weight != 0, structure)
    offsets = {"balanced": nonzero, "rows2": nonzero // 2, "rows4": nonzero // 4}
    assert packed.arrays[2].size == offsets.get(structure, nonzero // 16)


def test_shared_rows_by_hand():
    """F(1, 1): one coordinate. Two channels share their zeros; the third is alone in its slice."""
    shape = ConvShape(1, 3, 2, 2, 3, 1)
    plan = LayerPlan("by hand", shape, 0.5, "sparse_winograd", 1, 1, rows_at_once=2)
    plan = dataclasses.replace(plan, structure="rows2")
    weight = np.array([[[0, 7, 0], [0, 2, 0], [4, 0, 5]]], np.float32)
    layout = kernel_layout(plan, 4)
    starts, rows, offsets, values = pack(weight, plan, 4).arrays
    stride, spare = layout.v.stride, layout.product.channel_offset(layout.dummy_row)
    assert starts.tolist() == [0, 2, 3]
    assert rows.tolist() == [2 * stride, spare, 0, stride]
    assert ((offsets - layout.v.channel_offset(0)) // stride).tolist() == [0, 2, 1]
    assert values.reshape(3, 2).tolist() == [[4, 0], [5, 0], [7, 2]]


def test_balanced_by_hand():
    """Rows lie in the order of the weights; the short one is padded with its group's first."""
    shape = ConvShape(1, 3, 2, 2, 2, 1)
    plan = LayerPlan("by hand", shape, 0.5, "sparse_winograd", 1, 1, rows_at_once=1)
    plan = dataclasses.replace(plan, structure="balanced")
    weight = np.array([[[0, 7, 0], [4, 0, 5]]], np.float32)
    layout = kernel_layout(plan, 4)
    steps, rows, offsets, values = pack(weight, plan, 4).arrays
    stride = layout.v.stride
    assert (steps.tolist(), rows.tolist()) == ([2], [0, stride])
    assert ((offsets - layout.v.channel_offset(0)) // stride).tolist() == [1, 0, 0, 2]
    assert values.tolist() == [7, 0, 4, 5]


def test_kernel_by_hand():
    """F(2, 1): four coordinates, one list of inputs; values coordinate by coordinate."""
    shape = ConvShape(1, 3, 2, 2, 2, 1)
    plan = LayerPlan("by hand", shape, 0.5, "sparse_winograd", 2, 1, rows_at_once=1)
    plan = dataclasses.replace(plan, structure="kernel")
    weight = np.zeros((4, 2, 3), np.float32)
    weight[:, 0, 1], weight[:, 1, 0], weight[:, 1, 2] = (1, 2, 3, 0), (4, 5, 6, 7), (8, 9, 10, 11)
    layout = kernel_layout(plan, 4)
    starts, rows, offsets, values = pack(weight, plan, 4).arrays
    stride = layout.v.stride
    assert starts.tolist() == [0, 2, 3]
    assert rows.tolist() == [stride, 0]
    assert ((offsets - layout.v.channel_offset(0)) // stride).tolist() == [0, 2, 1]
    assert values.reshape(4, 3).tolist() == [[4, 8, 1], [5, 9, 2], [6, 10, 3], [7, 11, 0]]
