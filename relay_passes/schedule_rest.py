"""Schedule the functions that have no kernel of their own."""

from __future__ import annotations

import tvm
from tvm.ir import IRModule


@tvm.transform.module_pass(opt_level=0, name="ScheduleRest")
class ScheduleRest:
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        return mod
