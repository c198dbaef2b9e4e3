"""Nonzeros of spatial weights: round trip, order, padding, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.errors import WeightsError
from tvm_sparsewino.geometry_sparse import sparse_layout
from tvm_sparsewino.packing import pack, unpack

SMALL = st.integers(1, 4)


def plan(c, k, r=3, groups=1, k_block=0, rows=4, channel_block=0, **steps):
    shape = ConvShape(1, c, 19, 19, k, r, (0,) * 4, groups, **steps)
    return LayerPlan("", shape, 1.0, "sparse_direct", 0, 8, k_block, channel_block, rows)


@given(SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, st.sampled_from([0, 0.3, 1]))
def test_round_trip(c, k, r, s, groups, k_block, channel_block, rows, stride, density):
    steps = {"columns": s, "stride": stride, "dilation": 3 - stride % 2}
    made = plan(c * groups, k * groups, r, groups, k_block, rows, channel_block, **steps)
    rng = np.random.default_rng(0)
    weight = rng.uniform(1, 2, (k * groups, c, r, s)).astype(np.float32)
    weight[rng.random(weight.shape) >= density] = 0
    packed = pack(weight, made, 8)
    np.testing.assert_array_equal(unpack(packed), weight)
    assert np.count_nonzero(packed.arrays[3]) == np.count_nonzero(weight)


def test_the_order_is_the_kernels():
    """Rows by their length, as many at once as the plan says; short ones are padded."""
    weight = np.zeros((3, 2, 1, 2), np.float32)
    weight[0, 0, 0, 1], weight[2, 0, 0, 0], weight[2, 1, 0, 1] = 1, 2, 3
    made = plan(2, 3, 1, rows=2, columns=2)
    starts, rows, offsets, values = pack(weight, made, 8).arrays
    channel = sparse_layout(made, 8).channel_stride
    assert starts.tolist() == [0, 2, 2]
    assert rows.tolist() == [2, 0, 1, 3]
    assert values.tolist() == [2, 1, 3, 0]
    assert offsets.tolist() == [0, 1, channel + 1, 0]
    made = plan(2, 3, 1, rows=2, columns=2, channel_block=1)
    starts, rows, offsets, values = pack(weight, made, 8).arrays
    assert starts.tolist() == [0, 1, 1, 2, 2]
    assert rows.tolist() == [0, 2, 1, 3, 2, 0, 1, 3]
    assert values.tolist() == [1, 2, 3, 0]
    assert offsets.tolist() == [1, 0, 1, 0]


def test_nothing_but_zeros_packs_buffers_that_are_not_empty():
    packed = pack(np.zeros((6, 3, 3, 3), np.float32), plan(3, 6), 8)
    assert [len(a) for a in packed.arrays[2:]] == [1, 1]
    assert not packed.arrays[0].any()


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (np.zeros((6, 3, 3), np.float32), r"must be float32 \(6, 3, 3, 3\)"),
        (np.zeros((6, 3, 3, 3)), "got float64"),
        (np.full((6, 3, 3, 3), np.nan, np.float32), "NaN or infinity"),
        (np.full((6, 3, 3, 3), np.inf, np.float32), "NaN or infinity"),
    ],
)
def test_bad_weights_are_refused(weight, text):
    with pytest.raises(WeightsError, match=text):
        pack(weight, plan(3, 6), 8)
