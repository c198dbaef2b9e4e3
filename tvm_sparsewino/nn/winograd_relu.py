"""Move the ReLUs of a converted network behind the input transforms of its Winograd layers.

X. Liu, J. Pool, S. Han, W. Dally, "Efficient Sparse-Winograd Convolutional Neural Networks"
(ICLR 2018, arXiv:1802.06367): where a ReLU in front of a Winograd layer is replaced by one of the
transformed inputs, ``relu(B^T d B)`` instead of ``B^T relu(d) B``, activations are sparse in the
domain in which they are multiplied. The network computes something else then: train it.
"""

from __future__ import annotations

import copy

import torch
from torch import fx, nn
from torch.nn import functional

from ..errors import ConfigError
from .layers import WinogradConv2d
from .tracing import trace

_FUNCTIONS = (functional.relu, functional.relu_, torch.relu, torch.relu_)
_METHODS = ("relu", "relu_")


def move_relus(model: nn.Module) -> fx.GraphModule:
    """A copy of ``model`` whose Winograd layers take over the ReLUs in front of them.

    A ReLU is moved when all that uses its result are Winograd layers; it may be a module, a
    function or a method. Others stay: behind a shortcut, in front of pooling or of layers that are
    not converted. A layer that runs several times takes a ReLU over only where every call of it
    has one to give.

    Returns:
        the network as a graph with the same parameters under the same names; its attribute
        ``moved_relus`` lists the Winograd layers that took one over.

    Raises:
        ConfigError: the network's forward cannot be traced by torch.fx; the message says why.
    """
    model = copy.deepcopy(model)
    try:
        traced = trace(model)
    except Exception as error:  # whatever the model's forward does with a tracer's values
        raise ConfigError(f"{type(model).__name__} cannot be traced: {error}") from error
    calls: dict[str, list[fx.Node]] = {}
    for node in traced.graph.nodes:
        if _is_winograd(node, traced):
            calls.setdefault(str(node.target), []).append(node)
    able = {
        name
        for name, nodes in calls.items()
        if all(_only_for_winograd(n.args[0], traced) for n in nodes)
    }
    # What feeds several layers moves only if all of them take it.
    while True:
        kept = {name for name in able if all(_users(n.args[0]) <= able for n in calls[name])}
        if kept == able:
            break
        able = kept
    moved = sorted(able, key=list(calls).index)
    for name in moved:
        traced.get_submodule(name).winograd_relu = True
        for node in calls[name]:
            relu = node.args[0]
            node.replace_input_with(relu, relu.args[0])
            if not relu.users:
                traced.graph.erase_node(relu)
    traced.recompile()
    traced.training = model.training
    traced.moved_relus, traced.conversion = moved, getattr(model, "conversion", [])
    return traced


def _is_winograd(node: fx.Node, traced: fx.GraphModule) -> bool:
    return node.op == "call_module" and isinstance(
        traced.get_submodule(str(node.target)), WinogradConv2d
    )


def _only_for_winograd(node: object, traced: fx.GraphModule) -> bool:
    """Whether ``node`` is a ReLU that Winograd layers alone use."""
    if not isinstance(node, fx.Node) or not _is_relu(node, traced):
        return False
    # One that works in place may change what others read under the name of its input.
    if len(node.args) != 1 or len(node.args[0].users) != 1:
        return False
    return all(_is_winograd(user, traced) for user in node.users)


def _users(node: fx.Node) -> set[str]:
    return {str(user.target) for user in node.users}


def _is_relu(node: fx.Node, traced: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target))) is nn.ReLU
    if node.op == "call_function":
        return node.target in _FUNCTIONS
    return node.op == "call_method" and node.target in _METHODS
