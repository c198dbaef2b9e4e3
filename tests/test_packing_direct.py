"""Packed spatial weights: round trip, order, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.errors import WeightsError
from tvm_sparsewino.packing import pack, unpack
from tvm_sparsewino.packing_direct import pack_direct

SMALL = st.integers(1, 4)


def plan(c, k, r=3, groups=1, k_block=0, channel_block=0, rows=4):
    shape = ConvShape(1, c, 9, 9, k, r, (0,) * 4, groups)
    return LayerPlan("", shape, 1.0, "dense_direct", 0, 8, k_block, channel_block, rows)


@given(SMALL, SMALL, st.integers(1, 5), SMALL, SMALL, SMALL, SMALL)
def test_round_trip(c, k, r, groups, k_block, channel_block, rows):
    made = plan(c * groups, k * groups, r, groups, k_block, channel_block, rows)
    weight = np.random.default_rng(0).standard_normal((k * groups, c, r, r)).astype(np.float32)
    packed = pack(weight, made, 8)
    np.testing.assert_array_equal(unpack(packed), weight)
    assert np.count_nonzero(packed.arrays[0]) == weight.size


def test_the_order_is_the_kernels():
    """Blocks of outputs, blocks of inputs, slices, inputs, taps, outputs of the slice."""
    weight = np.arange(6 * 3 * 4, dtype=np.float32).reshape(6, 3, 2, 2)
    (values,) = pack_direct(weight, plan(3, 6, 2, k_block=4, channel_block=2, rows=2), 8)
    first = values[: 2 * 4 * 2].reshape(2, 2, 2, 2)
    np.testing.assert_array_equal(first, weight[:2, :2].transpose(1, 2, 3, 0))
    second = values[16:32].reshape(2, 2, 2, 2)
    np.testing.assert_array_equal(second, weight[2:4, :2].transpose(1, 2, 3, 0))
    last_input = values[32:40].reshape(2, 2, 2)
    np.testing.assert_array_equal(last_input, weight[:2, 2].transpose(1, 2, 0))
    assert len(values) == 2 * 3 * 4 * 4  # the second block of outputs is half zeros


@pytest.mark.parametrize(("outputs", "columns"), [(1, 0), (3, 2)])
def test_depthwise_weights_stay_as_they_are(outputs, columns):
    shape = ConvShape(1, 5, 9, 9, 5 * outputs, 3, (0,) * 4, 5, columns=columns)
    weight = np.arange(15.0 * outputs * shape.s, dtype=np.float32)
    weight = weight.reshape(shape.k, 1, 3, shape.s)
    packed = pack(weight, LayerPlan("", shape, 1.0, "dense_direct"), 8)
    np.testing.assert_array_equal(packed.arrays[0], weight.ravel())
    np.testing.assert_array_equal(unpack(packed), weight)


def test_filters_that_are_not_square():
    shape = ConvShape(1, 5, 9, 9, 7, 2, (0,) * 4, columns=3)
    made = LayerPlan("", shape, 1.0, "dense_direct", 0, 8, 4, 2, 4)
    weight = np.random.default_rng(0).standard_normal((7, 5, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(unpack(pack(weight, made, 8)), weight)


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
