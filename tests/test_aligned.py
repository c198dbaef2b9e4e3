"""Arrays that compiled code can read: where they begin, what they hold."""

import numpy as np
import pytest

from tvm_sparsewino import aligned


@pytest.mark.parametrize("make", [aligned.empty, aligned.zeros])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5), (1 << 18,)])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_memory_begins_at_a_multiple_of_64(make, shape, dtype):
    array = make(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert not array.size or array.ctypes.data % 64 == 0  # NumPy's address of nothing
    assert not array.size or aligned.is_aligned(array)
    assert make is aligned.empty or not array.any()


def test_memory_that_begins_elsewhere():
    assert not aligned.is_aligned(aligned.zeros((32,), np.float32)[1:])


def test_arrays_behind_each_other():
    parts = [np.arange(n, dtype=np.uint16) for n in (3, 0, 5)]
    joined = aligned.joined(parts)
    np.testing.assert_array_equal(joined, np.concatenate(parts), strict=True)
    assert aligned.is_aligned(joined)
