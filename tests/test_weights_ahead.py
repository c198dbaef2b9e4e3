"""Requests for weights that stream past: which kernels make them, and that answers stay right."""

import functools
import re

import pytest
from kernel_cases import SPARSE_DIRECT, Case, check, conv, operands

from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules import dense_gemm, sparse_gemm, sparse_tile
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.weights_ahead import asks_ahead

wide = functools.partial(Case, lanes=8, registers=32)
pointwise = functools.partial(conv, r=1, padding=(0, 0, 0, 0))
ONE_PANEL = wide(conv(7, 7, c=11, k=13), panel_vectors=2, rows_at_once=4)
DENSE_PRODUCT = wide(
    conv(7, 7, c=35, k=13), panel_vectors=2, algorithm="dense_winograd", rows_at_once=8
)
DIRECT = wide(pointwise(7, 7, c=11, k=13), 0, algorithm=SPARSE_DIRECT, rows_at_once=4)


def asked_for(case):
    """The buffers of weights that the kernel's text asks for."""
    packed = pack(operands(case)[1], case.plan, case.lanes)
    func = build_conv(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    names = re.findall(r"prefetch\(T\.address_of\((\w+)\[", func.script())
    return set(names) - {"output", "data"}


def test_only_code_for_avx512_asks():
    assert asks_ahead(32, 16) and asks_ahead(32, 8)
    assert not asks_ahead(16, 8) and not asks_ahead(32, 4)
    assert len(asked_for(ONE_PANEL)) == len(asked_for(DIRECT)) == 2
    assert not asked_for(Case(ONE_PANEL.shape, panel_vectors=2, rows_at_once=4, lanes=8))


def test_weights_that_several_panels_read_are_not_asked_for():
    assert not asked_for(wide(conv(14, 14, c=11, k=13), panel_vectors=2, rows_at_once=4))


def test_dense_weights_are_asked_for_if_they_are_many(monkeypatch):
    assert not asked_for(DENSE_PRODUCT)
    monkeypatch.setattr(dense_gemm, "DENSE_BYTES", 0)
    assert len(asked_for(DENSE_PRODUCT)) == 1
    check(DENSE_PRODUCT)


@pytest.mark.parametrize("case", [ONE_PANEL, DIRECT], ids=str)
def test_kernels_that_ask_are_the_oracle(case, monkeypatch):
    """Lines behind the end of the weights are asked for, too."""
    monkeypatch.setattr(sparse_gemm, "WINOGRAD_BYTES", 0)
    monkeypatch.setattr(sparse_tile, "DIRECT_BYTES", 0)
    check(case)
