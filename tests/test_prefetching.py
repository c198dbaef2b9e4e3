"""Requests of the Winograd kernel: for which maps."""

import re

import pytest
from kernel_cases import Case, conv, operands

from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv


@pytest.mark.parametrize("residual", [False, True])
def test_inputs_outputs_and_what_is_added_are_asked_for(residual):
    case = Case(conv(12, 12, c=3, k=5), epilogue=Epilogue(residual=residual))
    packed = pack(operands(case)[1], case.plan, case.lanes)
    func = build_conv(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    names = re.findall(r"prefetch\(T\.address_of\((\w+)\[.*\]\), (\d)", func.script())
    requests = {pair: names.count(pair) for pair in names}
    wanted = {"data": "0", "output": "1"} | ({"residual": "0"} if residual else {})
    assert dict(requests.keys()) == wanted
    assert requests["output", "1"] == requests.get(("residual", "0"), requests["output", "1"])
