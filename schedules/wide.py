"""64-bit addresses."""

from __future__ import annotations

from typing import Any

from .._compat import tir


def wide(index: Any) -> Any:
    """64-bit address arithmetic: with 32 bits LLVM adds a sign extension per lane."""
    return tir.Cast("int64", index)
