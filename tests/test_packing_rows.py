"""Nonzeros sorted into slices: every one has its step, and nothing else has a value."""

import numpy as np
import pytest

from tvm_sparsewino.errors import WeightsError
from tvm_sparsewino.packing_rows import check_weights, join_slices, never_empty, sort_rows


def matrix(rng, rows, columns, density):
    kept = rng.random((rows, columns)) < density
    return np.where(kept, rng.uniform(1, 2, kept.shape), 0).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_matrix_can_be_read_from_its_steps(rng, rows, density, width):
    slices = -(-rows // width) + 1
    weight = matrix(rng, rows, 7, density)
    cut = sort_rows(weight, slices, width)
    counts = np.count_nonzero(weight, axis=1)
    assert list(counts[cut.order]) == sorted(counts, reverse=True)
    written = cut.written(99).reshape(slices, width)
    columns = cut.place(-1, cut.column).reshape(-1, width)
    back, first = np.zeros_like(weight), 0
    for index, steps in enumerate(cut.steps):
        for lane, row in enumerate(written[index]):
            part = slice(first, first + steps)
            used = columns[part, lane] >= 0
            assert used.sum() == (counts[row] if row < rows else 0)
            assert not cut.values[part, lane][~used].any()
            if row < rows:
                back[row, columns[part, lane][used]] = cut.values[part, lane][used]
        assert steps == max((counts[r] for r in written[index] if r < rows), default=0)
        first += steps
    assert first == len(cut.values)
    assert np.array_equal(back, weight)


def test_equally_long_rows_keep_their_order():
    cut = sort_rows(np.ones((5, 2), np.float32), 3, 2)
    assert list(cut.order) == [0, 1, 2, 3, 4]
    assert list(cut.written(5)) == [0, 1, 2, 3, 4, 5]


def test_padding_may_differ_by_step():
    cut = sort_rows(np.array([[1, 1], [0, 1]], np.float32), 1, 2)
    padding = np.array([[10, 11], [12, 13]])
    assert list(cut.place(padding, cut.column + 20)) == [20, 21, 21, 13]


def test_slices_are_joined_with_where_they_begin():
    rows = [np.array([0, 1], np.int32), np.array([1, 0], np.int32)]
    places = [np.array([5, 6, 7], np.uint16), np.array([8], np.uint16)]
    values = [np.arange(3, dtype=np.float32), np.ones(1, np.float32)]
    joined = join_slices([3, 1], rows, places, values)
    assert [a.tolist() for a in joined] == [[0, 3, 4], [0, 1, 1, 0], [5, 6, 7, 8], [0, 1, 2, 1]]
    assert [a.dtype.name for a in joined] == ["int32", "int32", "uint16", "float32"]


def test_a_buffer_has_at_least_one_element():
    assert never_empty(np.zeros(0, np.uint16)).tolist() == [0]
    assert never_empty(np.zeros(0, np.uint16)).dtype == np.uint16
    assert never_empty(np.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_no_kernel_computes(bad):
    weight = np.zeros((2, 3), np.float32)
    check_weights(weight, (2, 3))
    with pytest.raises(WeightsError, match=r"must be float32 \(3, 2\), got float32 \(2, 3\)"):
        check_weights(weight, (3, 2))
    with pytest.raises(WeightsError, match="got float64"):
        check_weights(weight.astype(float), (2, 3))
    weight[1, 1] = bad
    with pytest.raises(WeightsError, match="NaN or infinity"):
        check_weights(weight, (2, 3))
