"""Relay passes, for TVM up to 0.19; with other versions, using one is an error that says so."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "FoldBatchNorm": "fold_batch_norm",
    "SparsifyConvs": "rewrite",
    "plan": "rewrite",
    "prepare": "preparing",
}

__all__ = ["FoldBatchNorm", "SparsifyConvs", "plan", "prepare"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..._compat import require_relay

    require_relay()
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
