"""Arrays into constants of Relax and back: values, types, and what stays in memory."""

import gc
import weakref

import numpy as np
import pytest
from tvm import relax

from tvm_sparsewino._compat import constant, constant_array, constant_tensor


@pytest.fixture
def no_collection():
    """Nothing is freed but what nobody holds."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_there_and_back(dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(dtype)
    made = constant(array)
    assert constant_array(made).dtype == array.dtype
    np.testing.assert_array_equal(constant_array(made), array, strict=True)


def test_a_view_that_is_not_contiguous():
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3].T
    np.testing.assert_array_equal(constant_array(constant(array)), array, strict=True)


def test_a_type_that_numpy_lacks():
    array = constant_array(relax.const([1.5, -2.0], "bfloat16"))
    assert array.astype(np.float32).tolist() == [1.5, -2.0]


def test_other_expressions_are_no_constants():
    assert constant_array(relax.Var("x", relax.TensorType((2,), "float32"))) is None


def test_the_value_of_a_constant_is_its_memory_and_keeps_it():
    made = constant(np.ones(3, np.float32))
    array = constant_array(made)
    assert array.__array_interface__["data"][0] == constant_tensor(made).data_ptr()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2
    del made
    assert array.tolist() == [1, 1, 1]


def test_an_array_goes_when_its_constant_is_made(no_collection):
    array = np.ones(3, np.float32)
    gone = weakref.ref(array)
    made = constant(array)
    del array
    assert gone() is None
    assert constant_array(made).tolist() == [1, 1, 1]
