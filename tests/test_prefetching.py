"""Requests of the Winograd and the dense direct kernel: for which maps."""

import dataclasses
import re

import pytest
from kernel_cases import DIRECT, Case, conv, operands

from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv


def asked_for(case):
    """Of every buffer, to be read (0) or written (1), how often it is asked for in the text."""
    packed = pack(operands(case)[1], case.plan, case.lanes)
    func = build_conv(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    names = re.findall(r"prefetch\(T\.address_of\((\w+)\[.*\]\), (\d)", func.script())
    return {pair: names.count(pair) for pair in names}


@pytest.mark.parametrize("residual", [False, True])
def test_inputs_outputs_and_what_is_added_are_asked_for(residual):
    requests = asked_for(Case(conv(12, 12, c=3, k=5), epilogue=Epilogue(residual=residual)))
    wanted = {"data": "0", "output": "1"} | ({"residual": "0"} if residual else {})
    assert dict(requests.keys()) == wanted
    assert requests["output", "1"] == requests.get(("residual", "0"), requests["output", "1"])


@pytest.mark.parametrize(("vectors", "lines"), [(1, 1), (2, 2), (3, 2), (4, 3)])
def test_what_the_dense_direct_kernel_adds_is_asked_for_line_by_line(vectors, lines):
    """Two vectors share a line; the last is asked for wherever lines begin."""
    shape = conv(1, 8 * vectors, r=1, padding=(0, 0, 0, 0), c=3, k=4)
    case = Case(shape, m=0, algorithm=DIRECT, lanes=8, panel_vectors=4, rows_at_once=2)
    added = dataclasses.replace(case, epilogue=Epilogue(residual=True))
    assert asked_for(case) == {}
    assert asked_for(added) == {("residual", "0"): 2 * lines}


@pytest.mark.parametrize("width", [12, 70])
def test_no_line_behind_the_last_row_is_asked_for(width):
    """It is the next channel's, which another core may be writing."""
    case = Case(conv(7, width, c=3, k=5), panel_vectors=5 if width == 12 else 1)
    packed = pack(operands(case)[1], case.plan, case.lanes)
    func = build_conv(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    requests = [line for line in func.script().splitlines() if "prefetch(" in line]
    assert requests
    assert all("T.min(" in line.partition("address_of")[2] for line in requests)
