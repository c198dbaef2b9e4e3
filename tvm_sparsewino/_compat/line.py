"""Names that TVM's two lines keep in different places.

"Relax" is apache-tvm 0.26 and 0.27; "Relay" is TVM up to 0.19, which still has Relay and tvmc.
"""

from __future__ import annotations

import tvm
from tvm.script.ir_builder import IRBuilder

from .installed import IS_RELAX_LINE

if IS_RELAX_LINE:
    from tvm import s_tir
    from tvm import tirx as tir
    from tvm.s_tir.schedule import ScheduleError
    from tvm.script.ir_builder import tirx as T

    # The node around a block; 0.26 keeps it with the other statements.
    BlockRealize = getattr(s_tir, "SBlockRealize", None) or tir.SBlockRealize
    Schedule = s_tir.Schedule
    NOALIAS = "tirx.noalias"
    # Set on a function that needs no more scheduling.
    IS_SCHEDULED = "tirx.is_scheduled"
else:
    from tvm import tir
    from tvm.script.ir_builder import tir as T
    from tvm.tir.schedule import ScheduleError

    BlockRealize, Schedule = tir.BlockRealize, tir.Schedule
    NOALIAS = "tir.noalias"
    IS_SCHEDULED = "tir.is_scheduled"

VERSION = str(tvm.__version__)

__all__ = [
    "IS_RELAX_LINE",
    "IS_SCHEDULED",
    "NOALIAS",
    "VERSION",
    "BlockRealize",
    "IRBuilder",
    "Schedule",
    "ScheduleError",
    "T",
    "tir",
]
