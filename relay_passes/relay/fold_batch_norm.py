"""Fold inference BatchNorm into the convolution before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relay
from tvm.ir import IRModule

from ..operators import WINOGRAD
from ..scaling import norm_scale_and_shift, scaled_weight
from ..sites import per_channel
from .graph import Graph, is_call_to, map_functions, named_constant, rebuilt
from .patterns import CONV2D, layer_name


@tvm.transform.module_pass(opt_level=0, name="sparsewino.FoldBatchNorm")
class FoldBatchNorm:
    """Scale a convolution's weights by BatchNorm's scale and add what is left of it as a bias.

    ``conv(x, w) [+ b] -> nn.batch_norm -> .0`` becomes ``conv(x, w * s) + (beta + (b - mean) * s)``
    with ``s = gamma / sqrt(variance + epsilon)`` per output channel, for plain convolutions and
    for Winograd coefficients, which are linear in the filter and scale the same way.

    Checked: everything but the data is constant, and nothing else sees what BatchNorm normalises.
    TVM's own FoldScaleAxis knows neither our operator nor where a weight came from. Computed in
    float64 and rounded once.
    """

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod``."""
        return map_functions(mod, _fold)


def _fold(func: relay.Function) -> relay.Function:
    graph = Graph(func)
    replacements: dict[relay.Expr, Any] = {}
    for expr in graph.order:
        if is_call_to(expr, CONV2D) or is_call_to(expr, WINOGRAD):
            found = _followed_by_norm(expr, graph)
            if found is not None:
                replacements[found[0]] = found[1]
    return rebuilt(graph, replacements) if replacements else func


def _followed_by_norm(call: relay.Call, graph: Graph) -> tuple[relay.Expr, Any] | None:
    """The normalised expression after ``call`` and what replaces it; None if there is none."""
    weight = graph.constant(call.args[1])
    is_winograd = is_call_to(call, WINOGRAD)
    if weight is None or not (is_winograd or call.attrs.kernel_layout == "OIHW"):
        return None
    axis = 1 if is_winograd else 0
    channels = weight.shape[axis]
    tail, bias = _past_bias(call, channels, graph)
    norm = graph.only_user(tail)
    if not is_call_to(norm, "nn.batch_norm") or int(norm.attrs.axis) != 1:
        return None
    item = graph.only_user(norm)
    if not (isinstance(item, relay.TupleGetItem) and item.index == 0):
        return None
    constants = [graph.constant(arg) for arg in norm.args[1:]]
    found = norm_scale_and_shift(norm.attrs, constants, channels)
    if found is None:
        return None
    scale, shift = found
    scaled = scaled_weight(weight, scale, axis).astype(np.float32)
    new_bias = (bias * scale + shift).astype(np.float32)
    constant = named_constant(scaled, f"{layer_name(call)}.weight")

    def new(changed: Any) -> relay.Expr:
        conv = relay.Call(call.op, [changed(call.args[0]), constant], call.attrs)
        return relay.nn.bias_add(conv, relay.const(new_bias))

    return item, new


def _past_bias(call: relay.Call, channels: int, graph: Graph) -> tuple[relay.Expr, np.ndarray]:
    """``call``, or the constant bias that is added to it, and the bias; zeros without one."""
    user = graph.only_user(call)
    bias = None
    if is_call_to(user, "nn.bias_add") and int(user.attrs.axis) % 4 == 1:
        bias = per_channel(graph.constant(user.args[1]), channels, vector=True)
    elif is_call_to(user, "add"):
        other = user.args[1] if user.args[0].same_as(call) else user.args[0]
        bias = per_channel(graph.constant(other), channels)
    if bias is None:
        return call, np.zeros(channels)
    return user, bias.astype(np.float64)
