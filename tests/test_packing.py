"""Packed weights: back and forth without loss, well formed, and refused when they are not ours."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.errors import ConfigError, ShapeError, WeightsError
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.packing import PackedWeights, pack, unpack

KERNELS = ("sparse_winograd", "dense_winograd")


def make_plan(algorithm="sparse_winograd", k=5, c=4, groups=1, **blocking):
    shape = ConvShape(1, c, 9, 9, k, 3, (1, 1, 1, 1), groups)
    return LayerPlan("layer", shape, 0.5, algorithm, 2, 1, **blocking)


def random_weight(plan, density, rng):
    shape = plan.conv
    size = ((plan.m + shape.r - 1) ** 2, shape.k, shape.c // shape.groups)
    weight = rng.standard_normal(size).astype(np.float32)
    weight[rng.random(size) >= density] = 0
    return weight


@st.composite
def cases(draw):
    groups = draw(st.integers(1, 3))
    plan = make_plan(
        draw(st.sampled_from(KERNELS)),
        groups * draw(st.integers(1, 7)),
        groups * draw(st.integers(1, 6)),
        groups,
        k_block=draw(st.integers(0, 12)),
        channel_block=draw(st.integers(0, 9)),
        rows_at_once=draw(st.integers(1, 4)),
    )
    sharers = draw(st.sampled_from([0, 2]))
    plan = dataclasses.replace(plan, split_k=sharers > 0, sharers=sharers)
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return plan, random_weight(plan, density, rng), draw(st.sampled_from([4, 8, 16]))


@given(cases())
def test_unpack_is_the_inverse(case):
    plan, weight, lanes = case
    packed = pack(weight, plan, lanes)
    np.testing.assert_array_equal(unpack(packed), weight, strict=True)
    assert packed.specs == tuple((a.shape, str(a.dtype)) for a in packed.arrays)
    assert packed.nbytes == sum(a.size * a.itemsize for a in packed.arrays)
    assert all(a.ndim == 1 and a.size and a.flags.c_contiguous for a in packed.arrays)
    *integers, values = packed.arrays
    assert values.dtype == np.float32
    assert {a.dtype for a in integers} == {np.dtype(np.int32)}


@given(cases())
def test_sparse_arrays_are_well_formed(case):
    plan, weight, lanes = case
    plan = dataclasses.replace(plan, algorithm="sparse_winograd")
    layout, width = kernel_layout(plan, lanes), plan.rows_at_once
    starts, rows, offsets, values = pack(weight, plan, lanes).arrays
    slices = layout.k_blocks * layout.v.coordinates * layout.slices
    assert starts.shape == (slices + 1,)
    assert starts[0] == 0
    assert (np.diff(starts) >= 0).all()
    assert rows.shape == (slices * width,)
    assert offsets.shape == values.shape == (max(starts[-1] * width, 1),)
    assert np.count_nonzero(values) == np.count_nonzero(weight)
    if starts[-1]:  # else there is one that is never read
        assert np.isin(offsets, layout.v.channel_offset(np.arange(plan.conv.c))).all()
    # Every (block, coordinate) writes each of its rows once; the rest goes to the spare row.
    spare = layout.product.channel_offset(layout.dummy_row)
    for index, written in enumerate(rows.reshape(-1, layout.slices * width)):
        block = index // layout.v.coordinates
        members = np.arange(min(layout.k_block, plan.conv.k - block * layout.k_block))
        kept = written[written != spare]
        places = layout.product.channel_offset(layout.first_row(block) + members)
        assert sorted(kept) == places.tolist()


@given(cases())
def test_padding_steps_read_their_own_group(case):
    """A padding step multiplies by zero, and zero times NaN must not leave the group."""
    plan, weight, lanes = case
    plan = dataclasses.replace(plan, algorithm="sparse_winograd")
    layout, width = kernel_layout(plan, lanes), plan.rows_at_once
    starts, rows, offsets, _ = pack(weight, plan, lanes).arrays
    shape = plan.conv
    channel_at = {layout.v.channel_offset(c): c for c in range(shape.c)}
    for index in range(len(starts) - 1):
        block = index // (layout.v.coordinates * layout.slices)
        first = layout.first_row(block)
        row_at = {layout.product.channel_offset(first + k): k for k in range(layout.k_block)}
        for lane in range(width):
            row = row_at.get(int(rows[index * width + lane]))
            if row is not None:
                group = (block * layout.k_block + row) // (shape.k // shape.groups)
                read = offsets[starts[index] * width + lane : starts[index + 1] * width : width]
                channels = {channel_at[int(o)] // (shape.c // shape.groups) for o in read}
                assert channels <= {group}


def test_a_small_sparse_layer_by_hand():
    """F(1, 1): one coordinate, so U is one matrix. Slices of two rows, longest rows first."""
    plan = LayerPlan("by hand", ConvShape(1, 3, 2, 2, 3, 1), 0.5, "sparse_winograd", 1, 1)
    plan = dataclasses.replace(plan, rows_at_once=2)
    weight = np.array([[[0, 7, 0], [1, 2, 3], [0, 0, 0]]], np.float32)
    layout = kernel_layout(plan, 4)
    starts, rows, offsets, values = pack(weight, plan, 4).arrays
    stride = layout.v.stride
    assert starts.tolist() == [0, 3, 3]
    assert rows[:3].tolist() == [stride, 0, 2 * stride]
    assert rows[3] == layout.product.channel_offset(layout.dummy_row)
    assert values.reshape(3, 2).tolist() == [[1, 7], [2, 0], [3, 0]]
    assert ((offsets.reshape(3, 2) - layout.v.channel_offset(0)) // stride).tolist() == [
        [0, 1],
        [1, 0],
        [2, 0],
    ]


@pytest.mark.parametrize("algorithm", KERNELS)
def test_dense_size_does_not_depend_on_zeros_and_sparse_does(algorithm, rng):
    plan = make_plan(algorithm, k=8, c=8)
    full, few = (pack(random_weight(plan, d, rng), plan, 8).nbytes for d in (1.0, 0.1))
    assert few == full if algorithm == "dense_winograd" else few < full / 3


@pytest.mark.parametrize("algorithm", KERNELS)
def test_weights_that_are_refused(algorithm, rng):
    plan = make_plan(algorithm)
    weight = random_weight(plan, 1.0, rng)
    wrong = [weight[1:], weight[:, :4], weight[..., :3], weight[None], weight.astype(np.float64)]
    for bad in wrong:
        with pytest.raises(WeightsError, match=r"must be float32 \(16, 5, 4\), got float"):
            pack(bad, plan, 8)
    for value in (np.nan, np.inf, -np.inf):
        bad = weight.copy()
        bad[3, 2, 1] = value
        with pytest.raises(WeightsError, match="NaN or infinity"):
            pack(bad, plan, 8)


def test_a_shape_without_a_kernel_is_refused():
    plan = make_plan(k=5, c=4, groups=2)
    with pytest.raises(ShapeError, match="4>5 channels"):
        pack(np.zeros((16, 5, 2), np.float32), plan, 8)


def test_a_layer_that_is_left_is_refused():
    plan = dataclasses.replace(make_plan(), algorithm="left")
    weight = np.zeros((16, 5, 4), np.float32)
    with pytest.raises(ConfigError, match="no packing for algorithm 'left'"):
        pack(weight, plan, 8)
    with pytest.raises(ConfigError, match="no packing for algorithm 'left'"):
        unpack(PackedWeights(plan, 8, (weight,)))
