"""Addresses in 64 bits, whatever they are made of."""

import pytest

from tvm_sparsewino._compat import tir
from tvm_sparsewino.schedules.wide import wide


@pytest.mark.parametrize("dtype", ["int32", "uint16"])
def test_an_index_becomes_64_bits_wide(dtype):
    assert 'Cast("int64"' in str(wide(tir.Var("index", dtype)))
