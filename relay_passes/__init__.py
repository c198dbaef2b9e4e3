"""Passes that find, plan and replace layers: in Relax here, in Relay in ``relay/``.

The names are loaded when they are first used: each line of TVM lacks what the other is made of.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "FoldBatchNorm": "fold_batch_norm",
    "RewriteLinears": "rewrite_linear",
    "SparsifyConvs": "rewrite_conv",
    "SplitTransposed": "split_transposed",
    "ToNCHW": "to_nchw",
    "plan": "plan_layers",
    "sparsewino_pipeline": "pipeline",
}

__all__ = [
    "FoldBatchNorm",
    "RewriteLinears",
    "SparsifyConvs",
    "SplitTransposed",
    "ToNCHW",
    "plan",
    "sparsewino_pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
