"""What the script builder of TVM up to 0.19 lacks."""

from __future__ import annotations

from typing import Any

from .line import IRBuilder, T, tir


class _Lets:
    """Let statements that one enclosing frame ends with; each holds all that follows it.

    Several in a row are closed in one loop, not each by the one before it: kernels have hundreds.
    """

    def __init__(self) -> None:
        self.frames: list[Any] = []

    def open(self, value: tir.PrimExpr) -> tir.Var:
        """Begin another statement."""
        frame = T.LetStmt(value)
        variable = frame.__enter__()
        self.frames.append(frame)
        return variable

    def close(self) -> None:
        """End all of them, the last one first."""
        _open.remove(self)
        for frame in reversed(self.frames):
            frame.__exit__(None, None, None)


_open: list[_Lets] = []


def let(value: tir.PrimExpr) -> tir.Var:
    """Bind ``value`` to a variable for the rest of the enclosing frame."""
    top = IRBuilder.current().frames[-1]
    if not (_open and _open[-1].frames[-1].same_as(top)):
        lets = _Lets()
        top.add_callback(lets.close)
        _open.append(lets)
    return _open[-1].open(value)


def call_llvm(dtype: str, intrinsic: str, *args: Any) -> tir.PrimExpr:
    """A call of one of LLVM's intrinsics; the types of all operands say which overload."""
    signature = tir.const(len(args), "uint32")
    return tir.call_llvm_pure_intrin(dtype, intrinsic, signature, *args)
