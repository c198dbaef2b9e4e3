"""Schedule the functions that have no kernel of their own."""

from __future__ import annotations

import tvm
from tvm.ir import IRModule

from .._compat import IS_SCHEDULED, tir
from ..schedules.general import schedule_function


@tvm.transform.module_pass(opt_level=0, name="ScheduleRest")
class ScheduleRest:
    """Make every PrimFunc without a schedule parallel and vectorised.

    Functions marked as scheduled, our kernels among them, stay as they are.

    Args:
        lanes: float32 lanes of the target's vector registers.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every PrimFunc of ``mod``."""
        result = mod.clone()
        for name, func in mod.functions.items():
            if isinstance(func, tir.PrimFunc) and not _is_scheduled(func):
                result.update_func(name, schedule_function(func, self.lanes))
        return result


def _is_scheduled(func: tir.PrimFunc) -> bool:
    return bool(func.attrs and func.attrs.get(IS_SCHEDULED))
