"""A network's forward as a graph of torch.fx in which Winograd layers stay whole."""

from __future__ import annotations

from torch import fx, nn

from .layers import WinogradConv2d


def trace(model: nn.Module) -> fx.GraphModule:
    """The graph of ``model``, with its own parameters; whatever its forward raises passes."""
    return fx.GraphModule(model, _Tracer().trace(model), type(model).__name__)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, WinogradConv2d) or super().is_leaf_module(module, name)
