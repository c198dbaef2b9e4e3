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
    from .pruning import NativePruner

__all__ = ["NativePruner", "PruneConfig", "WinogradConv2d", "convert"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: layers and conversion need none of the pruning code.
    if name != "NativePruner":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(".pruning", __name__).NativePruner
