"""PyTorch side: Winograd-domain layers, conversion, native pruning, training, export."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra

if importlib.util.find_spec("torch") is None:
    raise MissingExtra("tvm_sparsewino.nn needs PyTorch: pip install 'tvm-sparsewino[torch]'")

from ..config import PruneConfig
from .convert import convert
from .layers import WinogradConv2d

if TYPE_CHECKING:
    from .one_shot import prune_one_shot
    from .precondition import WhitenedAdam, whitened_layers
    from .pruning import NativePruner

# Loaded on first use: layers and conversion need none of the pruning code.
_LAZY = {
    "NativePruner": ".pruning",
    "WhitenedAdam": ".precondition",
    "prune_one_shot": ".one_shot",
    "whitened_layers": ".precondition",
}

__all__ = [
    "NativePruner",
    "PruneConfig",
    "WhitenedAdam",
    "WinogradConv2d",
    "convert",
    "prune_one_shot",
    "whitened_layers",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __name__), name)
