"""Which channels of a network are coupled: pruning one prunes all of them.

Every channel of every value gets a number; the graph of torch.fx says which are the same. A
convolution makes new ones, an element-wise operator passes them on, a sum ties those of its
operands, concatenation joins lists, flattening repeats each. Where a channel goes through something
that is not known to treat channels one by one and to leave zeros zero, it is *fixed*.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from ..errors import PruneError
from .layers import WinogradConv2d
from .modes import evaluation
from .tracing import trace

CONVOLUTIONS = (nn.Conv2d, WinogradConv2d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)

# Channel by channel, and zero where the channel is zero.
_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.ELU, nn.SELU),
    *(nn.Dropout, nn.Dropout2d, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    *(nn.AdaptiveMaxPool2d, nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
)
_FUNCTIONS = (
    *(F.relu, F.relu_, F.relu6, F.leaky_relu, F.gelu, F.silu, F.hardswish, F.dropout, F.dropout2d),
    *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate),
    *(torch.relu, torch.relu_, torch.tanh, torch.max_pool2d),
)
_METHODS = ("relu", "relu_", "tanh", "contiguous", "clone", "detach", "float")
_SUMS = (operator.add, operator.iadd, torch.add, operator.sub, torch.sub)
_PRODUCTS = (operator.mul, operator.imul, torch.mul)


@dataclass
class ChannelMap:
    """Channels of the values around each module, as numbers; equal roots mean equal channels.

    Attributes:
        inputs, outputs: by module's name, the channels of its input and output, [C] and [K].
        fixed: roots that must stay.
    """

    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)
    _parent: list[int] = field(default_factory=list)

    def new(self, count: int) -> np.ndarray:
        """Channels of their own."""
        first = len(self._parent)
        self._parent += range(first, first + count)
        return np.arange(first, first + count)

    def root(self, channel: int) -> int:
        """The number that stands for all channels tied to this one."""
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def roots(self, channels: Iterable[int]) -> np.ndarray:
        """The root of each channel."""
        return np.array([self.root(int(c)) for c in channels], dtype=np.int64)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Channels of two lists go or stay in pairs."""
        for first, second in zip(self.roots(a), self.roots(b), strict=True):
            one, other = self.root(first), self.root(second)
            self._parent[other] = one
            if other in self.fixed:
                self.fixed.add(one)

    def fix(self, channels: Iterable[int]) -> None:
        """Channels that must stay, with all that are tied to them, now or later."""
        self.fixed.update(self.roots(channels).tolist())

    def is_fixed(self, root: int) -> bool:
        """Whether the channels of a root must stay."""
        return root in self.fixed


def channel_map(model: nn.Module, example: tuple[Any, ...]) -> ChannelMap:
    """The channels of ``model`` as torch.fx sees its forward.

    Args:
        model: any module whose forward can be traced; convolutions, batch normalisation and linear
            layers are understood, and what leaves channels apart.
        example: positional arguments of a forward, for the sizes of maps.

    Raises:
        PruneError: the forward cannot be traced or does not take the example.
    """
    try:
        traced = trace(model)
        with evaluation(model), torch.no_grad():
            ShapeProp(traced).propagate(*example)
    except Exception as error:  # whatever the model's forward does with a tracer's values
        raise PruneError(f"{type(model).__name__} cannot be traced: {error}") from error
    reading = _Reading(ChannelMap(), traced)
    for node in traced.graph.nodes:
        reading.take(node)
    return reading.found


@dataclass
class _Reading:
    """One walk over a graph: the channels of every value so far."""

    found: ChannelMap
    traced: fx.GraphModule
    values: dict[fx.Node, np.ndarray] = field(default_factory=dict)

    def take(self, node: fx.Node) -> None:
        shape = _shape(node)
        if node.op == "output":
            self._fix_inputs(node)
        elif shape is None:
            # Numbers made from a value; all but its batch size may depend on its channels.
            if not (node.op == "call_method" and node.target == "size" and node.args[1:] == (0,)):
                self._fix_inputs(node)
        else:
            channels = self._channels(node, shape)
            if channels is None:
                self._fix_inputs(node)
                channels = self.found.new(shape[1] if len(shape) > 1 else 1)
                self.found.fix(channels)
            self.values[node] = channels

    def _channels(self, node: fx.Node, shape: tuple[int, ...]) -> np.ndarray | None:
        """The channels of a value; None where they are not understood."""
        given = [self.values[n] for n in node.all_input_nodes if n in self.values]
        if node.op == "call_module":
            module = self.traced.get_submodule(str(node.target))
            return self._of_module(str(node.target), module, node, shape) if given else None
        if not given or node.op not in ("call_function", "call_method"):
            return None
        if node.target in _FUNCTIONS or node.target in _METHODS:
            return given[0] if len(given) == 1 else None
        readers = (
            ((*_SUMS, *_PRODUCTS), self._pairwise),
            ((torch.cat, torch.concat), self._joined),
            ((torch.flatten, "flatten", "view", "reshape", torch.reshape), self._reshaped),
            (("mean", torch.mean), self._averaged),
        )
        reader = next((read for targets, read in readers if node.target in targets), None)
        return None if reader is None else reader(node, shape)

    def _of_module(
        self, name: str, module: nn.Module, node: fx.Node, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        inputs = self.values[node.all_input_nodes[0]]
        if isinstance(module, nn.Flatten):
            return self._flattened(node, shape) if module.start_dim == 1 else None
        if isinstance(module, CONVOLUTIONS):
            return self._known(name, inputs, self._of_convolution(name, module, inputs))
        if type(module) is nn.Linear and len(shape) == 2:
            outputs = self.outputs_of(name, module.out_features)
            self.found.fix(outputs)  # rows of linear layers are no filters
            return self._known(name, inputs, outputs)
        if type(module) in NORMS:
            return self._known(name, inputs, inputs)
        if type(module) is nn.PReLU and module.num_parameters in (1, len(inputs)):
            return self._known(name, inputs, inputs)
        return inputs if type(module) in _MODULES else None

    def _of_convolution(self, name: str, module: Any, inputs: np.ndarray) -> np.ndarray:
        if module.groups == module.in_channels == module.out_channels:
            return inputs
        outputs = self.outputs_of(name, module.out_channels)
        if module.groups > 1 or type(module) not in CONVOLUTIONS:
            self.found.fix(inputs)
            self.found.fix(outputs)
        return outputs

    def outputs_of(self, name: str, count: int) -> np.ndarray:
        known = self.found.outputs.get(name)
        return self.found.new(count) if known is None else known

    def _known(self, name: str, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Note the channels around a module; a second call has the same weights."""
        if name in self.found.inputs:
            self.found.tie(self.found.inputs[name], inputs)
            self.found.tie(self.found.outputs[name], outputs)
        self.found.inputs.setdefault(name, inputs)
        self.found.outputs.setdefault(name, outputs)
        return outputs

    def _pairwise(self, node: fx.Node, shape: tuple[int, ...]) -> np.ndarray | None:
        operands = [n for n in node.args[:2] if isinstance(n, fx.Node)]
        if any(n not in self.values for n in operands):
            return None
        if len(operands) == 1:
            # A number: products leave zeros, sums do not.
            return self.values[operands[0]] if node.target in _PRODUCTS else None
        if any(len(_shape(n)) != len(shape) or _shape(n)[1] != shape[1] for n in operands):
            return None
        self.found.tie(*(self.values[n] for n in operands))
        return self.values[operands[0]]

    def _joined(self, node: fx.Node, _: tuple[int, ...]) -> np.ndarray | None:
        parts = node.args[0]
        if _argument(node, 1, "dim", 0) != 1 or any(p not in self.values for p in parts):
            return None
        return np.concatenate([self.values[p] for p in parts])

    def _averaged(self, node: fx.Node, _: tuple[int, ...]) -> np.ndarray | None:
        source, dims = node.args[0], _argument(node, 1, "dim", None)
        dims = dims if isinstance(dims, (tuple, list)) else (dims,)
        over_maps = set(dims) <= {2, 3, -1, -2} and len(_shape(source)) == 4
        return self.values[source] if over_maps else None

    def _reshaped(self, node: fx.Node, shape: tuple[int, ...]) -> np.ndarray | None:
        if node.target in (torch.flatten, "flatten"):
            whole = _argument(node, 1, "start_dim", 0) == 1
        else:
            whole = _keeps_batch(node)
        return self._flattened(node, shape) if whole else None

    def _flattened(self, node: fx.Node, shape: tuple[int, ...]) -> np.ndarray | None:
        inputs = self.values[node.all_input_nodes[0]]
        if len(shape) != 2 or shape[1] % len(inputs):
            return None
        return np.repeat(inputs, shape[1] // len(inputs))

    def _fix_inputs(self, node: fx.Node) -> None:
        for source in node.all_input_nodes:
            if source in self.values:
                self.found.fix(self.values[source])


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if hasattr(meta, "shape") else None


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _keeps_batch(node: fx.Node) -> bool:
    """Whether a view is to [N, -1] with N the batch, so that it fits any number of channels."""
    sizes = node.args[1:]
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    return len(sizes) == 2 and sizes[1] == -1 and sizes[0] != -1
