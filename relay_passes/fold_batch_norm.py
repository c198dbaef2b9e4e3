"""Fold inference BatchNorm into the convolution before it."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from .bindings import Bindings, map_functions, replaced
from .ops import WINOGRAD, is_call_to
from .patterns import CONV2D

BATCH_NORM = "relax.nn.batch_norm"


@tvm.transform.module_pass(opt_level=0, name="FoldBatchNorm")
class FoldBatchNorm:
    """Scale a convolution's weights by BatchNorm's scale and add what is left of it as a bias.

    ``conv(x, w) [+ b] -> batch_norm -> [0]`` becomes ``conv(x, w * s) + (beta + (b - mean) * s)``
    with ``s = gamma / sqrt(variance + epsilon)`` per output channel, for plain convolutions and
    for Winograd coefficients, which are linear in the filter and scale the same way.

    Checked: everything but the data is constant, BatchNorm does not train and normalises
    channels, and nothing else sees what it normalises. TVM's own pass knows neither our operator
    nor a bias between the two. Computed in float64 and rounded once.
    """

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod``."""
        return map_functions(mod, _fold)


def _fold(func: relax.Function) -> relax.Function:
    bindings = Bindings(func)
    values: dict[relax.Var, relax.Expr] = {}
    dropped: set[relax.Var] = set()
    for binding in bindings.order:
        if is_call_to(binding.value, CONV2D) or is_call_to(binding.value, WINOGRAD):
            folded = _fold_one(binding.var, binding.value, bindings)
            if folded is not None:
                values.update(folded[0])
                dropped |= folded[1]
    return replaced(func, values, dropped) if values else func


def _fold_one(
    var: relax.Var, conv: relax.Call, bindings: Bindings
) -> tuple[dict[relax.Var, relax.Expr], set[relax.Var]] | None:
    """New values and dropped variables for one convolution, None when it stays as it is."""
    weight = bindings.constant(conv.args[1])
    if weight is None or not _kernel_channels_first(conv):
        return None
    channels = weight.shape[1 if is_call_to(conv, WINOGRAD) else 0]
    bias, normalised, dropped = np.zeros(channels), var, set()
    if len(conv.args) == 3:
        own_bias = bindings.constant(conv.args[2])
        if own_bias is None:
            return None
        bias = own_bias.astype(np.float64)
    added = _bias_add(var, channels, bindings)
    if added is not None:
        normalised = added[0]
        bias = bias + added[1]
        dropped.add(normalised)
    scaled = _scale_and_shift(normalised, channels, bindings)
    if scaled is None:
        return None
    norm, item, scale, shift = scaled
    shape = (1, channels, 1) if is_call_to(conv, WINOGRAD) else (channels, 1, 1, 1)
    new_weight = (weight.astype(np.float64) * scale.reshape(shape)).astype(np.float32)
    new_bias = (bias * scale + shift).astype(np.float32).reshape(1, channels, 1, 1)
    args = [conv.args[0], relax.const(new_weight)]
    values = {
        var: relax.Call(conv.op, args, conv.attrs),
        item: relax.op.add(var, relax.const(new_bias)),
    }
    return values, {*dropped, norm}


def _kernel_channels_first(conv: relax.Call) -> bool:
    return is_call_to(conv, WINOGRAD) or (
        conv.attrs.kernel_layout == "OIHW" and conv.attrs.out_layout == "NCHW"
    )


def _bias_add(
    var: relax.Var, channels: int, bindings: Bindings
) -> tuple[relax.Var, np.ndarray] | None:
    """The one use of ``var`` when it adds a constant per channel: its variable and the bias."""
    user = bindings.only_user(var)
    call = bindings.value(user) if user is not None else None
    if not is_call_to(call, "relax.add"):
        return None
    other = call.args[1] if call.args[0].same_as(var) else call.args[0]
    bias = bindings.constant(other)
    if bias is None or bias.shape not in ((1, channels, 1, 1), (channels, 1, 1)):
        return None
    return user, bias.reshape(-1).astype(np.float64)


def _scale_and_shift(
    var: relax.Var, channels: int, bindings: Bindings
) -> tuple[relax.Var, relax.Var, np.ndarray, np.ndarray] | None:
    """The BatchNorm that alone uses ``var``: its variable, its result's, scale and shift."""
    norm = bindings.only_user(var)
    call = bindings.value(norm) if norm is not None else None
    if not is_call_to(call, BATCH_NORM) or bool(call.attrs.training) or int(call.attrs.axis) != 1:
        return None
    item = bindings.only_user(norm)
    value = bindings.value(item) if item is not None else None
    if not (isinstance(value, relax.TupleGetItem) and value.index == 0):
        return None
    constants = [bindings.constant(arg) for arg in call.args[1:]]
    if any(c is None or c.shape != (channels,) for c in constants):
        return None
    gamma, beta, mean, variance = (c.astype(np.float64) for c in constants)
    scale = 1.0 / np.sqrt(variance + float(call.attrs.epsilon))
    if call.attrs.scale:
        scale = scale * gamma
    shift = -mean * scale
    return norm, item, scale, shift + beta if call.attrs.center else shift
