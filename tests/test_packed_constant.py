"""Packed weights become constants: in their own memory, or copied where that cannot be shared."""

import numpy as np
import pytest

from tvm_sparsewino import aligned
from tvm_sparsewino._compat import constant_array, constant_tensor
from tvm_sparsewino.config import CompileConfig, ConvShape
from tvm_sparsewino.config_linear import LinearShape
from tvm_sparsewino.packing import pack
from tvm_sparsewino.packing_linear import pack_linear
from tvm_sparsewino.planner import kernel_weight, plan_of, spatial_options
from tvm_sparsewino.planner_linear import plan_linear
from tvm_sparsewino.relay_passes.packed_constant import packed_constant
from tvm_sparsewino.schedules.linear_build import linear_layout
from tvm_sparsewino.schedules.target import parse_target

CPU = parse_target("llvm")


def address(array):
    return array.__array_interface__["data"][0]


def test_aligned_memory_is_taken_over():
    array = aligned.zeros((3, 5), np.float32)
    array[1] = 2
    made = packed_constant(array)
    assert constant_tensor(made).data_ptr() == address(array)
    del array
    assert constant_array(made).tolist() == [[0] * 5, [2] * 5, [0] * 5]


def read_only():
    array = aligned.zeros((4, 4), np.float32)
    array.flags.writeable = False
    return array


def elsewhere():
    return aligned.zeros((20,), np.float32)[1:17].reshape(4, 4)


def strided():
    return aligned.zeros((4, 8), np.float32)[:, ::2]


@pytest.mark.parametrize("make", [read_only, elsewhere, strided])
def test_other_memory_is_copied(make):
    array = make()
    made = packed_constant(array)
    assert constant_tensor(made).data_ptr() != address(array)
    np.testing.assert_array_equal(constant_array(made), array, strict=True)


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_convolutions_are_packed_into_memory_that_is_taken_over(rng, density):
    shape = ConvShape(1, 5, 9, 9, 7, 3, (1,) * 4)
    weight = rng.standard_normal((7, 5, 3, 3)).astype(np.float32)
    weight[rng.random(weight.shape) >= density] = 0
    seen = set()
    for option in spatial_options(shape, weight, CPU, CompileConfig()):
        plan = plan_of("layer", shape, option)
        arrays = pack(kernel_weight(weight, 0, plan), plan, CPU.lanes).arrays
        assert aligned.is_aligned(max(arrays, key=lambda array: array.nbytes)), plan.algorithm
        seen.add(plan.algorithm)
    assert len(seen) >= 2


@pytest.mark.parametrize("density", [1.0, 0.1])
def test_linear_layers_are_packed_into_memory_that_is_taken_over(rng, density):
    weight = rng.standard_normal((40, 60)).astype(np.float32)
    weight[rng.random(weight.shape) >= density] = 0
    plan = plan_linear("layer", LinearShape(1, 60, 40), weight, CPU, 1)
    arrays = pack_linear(weight, linear_layout(plan, CPU.lanes, CPU.vector_registers))
    assert aligned.is_aligned(max(arrays, key=lambda array: array.nbytes))
