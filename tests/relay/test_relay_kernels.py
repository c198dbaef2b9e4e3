"""One kernel source: every variant of the kernels, built by this TVM, against the oracle."""

import dataclasses

import pytest
from avx512_cases import CASES, name_of
from kernel_cases import HOST, check


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_kernel_is_the_oracle(case):
    registers = HOST.vector_registers
    check(dataclasses.replace(case, lanes=HOST.lanes, registers=registers))
