"""Which of its two lines TVM belongs to, and the names that only differ in where they live.

"Relax" is apache-tvm 0.26 and 0.27; "Relay" is TVM up to 0.19, which still has Relay and tvmc.
"""

from __future__ import annotations

import importlib.util

import tvm
from tvm.script.ir_builder import IRBuilder

from ..errors import MissingExtra

# TVM renamed tir to tirx a good while after Relay had left.
IS_RELAX_LINE = importlib.util.find_spec("tvm.tirx") is not None

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


def require_relay() -> None:
    """Refuse to go on where TVM has no Relay.

    Raises:
        MissingExtra: it has none; the message names both versions.
    """
    if importlib.util.find_spec("tvm.relay") is None:
        raise MissingExtra(
            f"the installed TVM {VERSION} has no Relay: it ended with TVM 0.19. "
            "docs/relay.md tells how to install this package beside TVM 0.16 to 0.19"
        )


def require_relax() -> None:
    """Refuse to go on where TVM is of the line before Relax.

    Raises:
        MissingExtra: it is; the message names both versions.
    """
    if not IS_RELAX_LINE:
        raise MissingExtra(
            f"the installed TVM {VERSION} is of the Relay line; this needs apache-tvm 0.26 or "
            "0.27. For Relay there are tvm_sparsewino.relay and sparsewino-tvmc (docs/relay.md)"
        )


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
    "require_relax",
    "require_relay",
    "tir",
]
