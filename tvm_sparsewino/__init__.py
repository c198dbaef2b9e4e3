"""Sparse Winograd convolutions for TVM: prune natively in PyTorch, compile, run on CPUs."""

from __future__ import annotations

import importlib
from typing import Any

from ._version import __version__

# Public name -> module that defines it; loaded on first use, so that importing stays light.
_PUBLIC = {
    "CompileConfig": "config",
    "LayerPlan": "config",
    "PruneConfig": "config",
    "Session": "session",
    "SparseWinoError": "errors",
    "compile": "driver",
    "export_onnx": "driver",
    "import_onnx": "driver",
    "import_torch": "driver",
    "load": "loading",
    "tune": "driver",
}
# Of these, the modules that compile and run with Relax.
_NEED_RELAX = frozenset(("driver", "loading", "session"))

__all__ = [
    "CompileConfig",
    "LayerPlan",
    "PruneConfig",
    "Session",
    "SparseWinoError",
    "__version__",
    "compile",
    "export_onnx",
    "import_onnx",
    "import_torch",
    "load",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _PUBLIC[name]
    if module in _NEED_RELAX:
        importlib.import_module("._compat", __name__).require_relax()
    return getattr(importlib.import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
