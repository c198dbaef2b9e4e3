"""Put weights from a file into the layers of a Relay module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from tvm import relay
from tvm.ir import IRModule

from ...cook_toom import canonical_points, points_to_text
from ...errors import WeightsError, in_context
from ...geometry import as_padding
from ...weights import LayerWeights
from ..sites import per_channel
from .graph import Graph, is_call_to, map_functions, named_constant, rebuilt
from .ops import winograd_conv2d
from .patterns import CONV2D, layer_name


def with_weights(mod: IRModule, layers: Iterable[LayerWeights]) -> IRModule:
    """``mod`` with the convolutions of these names computing with these weights.

    Winograd coefficients turn ``nn.conv2d`` into ``sparsewino.winograd_conv2d``; ordinary weights
    take the place of those that are there. A bias of the file takes the place of the module's.

    Args:
        mod: a module in Relay, as :func:`.preparing.named` returns it.
        layers: what :func:`tvm_sparsewino.weights.load_weights` returned. Layers without a
            convolution in the module must have ordinary weights and are ignored.

    Raises:
        WeightsError: Winograd weights for a layer that the module does not have, or that do not fit
            its convolution.
    """
    wanted = {layer.name: layer for layer in layers}
    found: set[str] = set()
    result = map_functions(mod, lambda func: _replaced(func, wanted, found))
    missing = sorted(n for n, layer in wanted.items() if layer.u is not None and n not in found)
    if missing:
        raise WeightsError(f"the module has no convolutions for the layers {missing}")
    return result


def _replaced(
    func: relay.Function, wanted: dict[str, LayerWeights], found: set[str]
) -> relay.Function:
    graph = Graph(func)
    replacements: dict[relay.Expr, Any] = {}
    for expr in graph.order:
        layer = wanted.get(layer_name(expr)) if is_call_to(expr, CONV2D) else None
        if layer is not None:
            found.add(layer.name)
            with in_context(f"layer {layer.name!r}"):
                replacements[_biased(expr, layer, graph)] = _new_layer(expr, layer)
    return rebuilt(graph, replacements) if replacements else func


def _biased(call: relay.Call, layer: LayerWeights, graph: Graph) -> relay.Expr:
    """What the file's bias replaces: the convolution with the bias behind it, or without one."""
    user = graph.only_user(call)
    channels = int(call.checked_type.shape[1])
    if layer.bias is None:
        return call
    if is_call_to(user, "nn.bias_add") and int(user.attrs.axis) % 4 == 1:
        return user
    if is_call_to(user, "add"):
        other = user.args[1] if user.args[0].same_as(call) else user.args[0]
        if per_channel(graph.constant(other), channels) is not None:
            return user
    return call


def _new_layer(call: relay.Call, layer: LayerWeights) -> Any:
    """What computes the layer, made when its data is known."""
    weight = layer.weight if layer.u is None else layer.u
    constant = named_constant(np.asarray(weight), f"{layer.name}.weight")
    if layer.u is None:
        old = tuple(int(d) for d in call.args[1].checked_type.shape)
        if weight.shape != old:
            raise WeightsError(f"its weights are {weight.shape}, the module's {old}")
    else:
        _check_winograd(call, layer)

    def new(changed: Any) -> relay.Expr:
        data, attrs = changed(call.args[0]), call.attrs
        if layer.u is None:
            conv = relay.Call(call.op, [data, constant], attrs)
        else:
            conv = winograd_conv2d(
                data,
                constant,
                m=layer.m,
                r=layer.r,
                points=points_to_text(canonical_points(layer.m, layer.r)),
                padding=as_padding(tuple(int(p) for p in attrs.padding)),
                groups=int(attrs.groups),
                relu=layer.relu,
            )
        return conv if layer.bias is None else relay.nn.bias_add(conv, relay.const(layer.bias))

    return new


def _check_winograd(call: relay.Call, layer: LayerWeights) -> None:
    """Refuse coefficients that do not make the convolution that the module has."""
    attrs = call.attrs
    one = all(int(v) == 1 for v in (*attrs.strides, *attrs.dilation))
    if attrs.data_layout != "NCHW" or not one:
        raise WeightsError("Winograd weights need an NCHW convolution of stride and dilation 1")
    k, per_group, r, s = (int(d) for d in call.args[1].checked_type.shape)
    got = (layer.r, layer.r, *layer.u.shape[1:])
    if (r, s, k, per_group) != got:
        raise WeightsError(f"the module has (r, s, K, C/groups) {(r, s, k, per_group)}, not {got}")
