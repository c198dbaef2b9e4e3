"""Fold inference BatchNorm, and whatever else scales and shifts channels, into weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from .._compat import constant
from .affine import ARITHMETIC, Affine, chain_after, chain_at
from .bindings import Bindings, map_functions, replaced
from .operators import WINOGRAD
from .ops import BATCH_NORM, CONV2D, CONV2D_TRANSPOSE, MATMUL, is_call_to
from .scaling import scaled_weight


@tvm.transform.module_pass(opt_level=0, name="FoldBatchNorm")
class FoldBatchNorm:
    """Put scales and shifts of channels where they cost nothing, or next to nothing.

    1. ``conv(x, w) [+ b] -> batch_norm -> [0]`` is ``conv(x, w * s) + (beta + (b - mean) * s)``
       with ``s = gamma / sqrt(variance + epsilon)`` per output channel, for plain convolutions of
       any stride and groups, for transposed ones without groups, for products with constant
       weights (linear layers), and for Winograd coefficients, which are linear in the filter and
       scale the same way. Products and sums with constants per channel count like BatchNorm.
    2. What scales and shifts the input of a plain convolution that has no padding becomes
       ``conv(x, w * s) + sum of w * t``. With padding that would be another function: the zeros
       around the map are not shifted.
    3. Any other BatchNorm becomes ``x * s + t``, two operators that are fused with what is beside
       them.

    Checked: everything but the data is constant, BatchNorm does not train and normalises
    channels, and nothing else sees what lies between. TVM's own pass knows neither our operator
    nor a bias between the two. Computed in float64 and rounded once.
    """

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod``."""
        for fold in (_into_weights_before, _into_weights_after, _to_scale_and_shift):
            mod = map_functions(mod, fold)
        return mod


# ---- into the layer before ---------------------------------------------------------------------


def _into_weights_before(func: relax.Function) -> relax.Function:
    bindings = Bindings(func)
    values: dict[relax.Var, relax.Expr] = {}
    dropped: set[relax.Var] = set()
    for binding in bindings.order:
        scaled = _scaled_weights(binding.value, bindings)
        if scaled is None:
            continue
        chain = chain_after(binding.var, bindings)
        if chain is None or not chain.scales:
            continue
        weight, bias = scaled(chain.scale)
        shift = (chain.shift if bias is None else chain.shift + bias).astype(np.float32)
        ones = (1,) * (len(binding.var.ty.shape.values) - 2)
        args = [binding.value.args[0], constant(weight.astype(np.float32))]
        values[binding.var] = relax.Call(binding.value.op, args, binding.value.attrs)
        values[chain.result] = relax.op.add(binding.var, constant(shift.reshape(1, -1, *ones)))
        dropped |= set(chain.inner)
    return replaced(func, values, dropped) if values else func


Scaled = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


def _scaled_weights(value: relax.Expr, bindings: Bindings) -> Scaled | None:
    """Makes float64 weights and bias, or None, of a layer from scales of its output channels.

    None for what is no such layer, or one whose weights are not constant.
    """
    if is_call_to(value, WINOGRAD) or is_call_to(value, CONV2D):
        axis = 1 if is_call_to(value, WINOGRAD) else 0
        fits = _is_plain_layout(value)
    elif is_call_to(value, CONV2D_TRANSPOSE):
        axis = 1
        attrs = value.attrs
        fits = attrs.groups == 1 and (attrs.kernel_layout, attrs.out_layout) == ("IOHW", "NCHW")
    elif is_call_to(value, MATMUL):
        axis, fits = 1, int(value.args[0].ty.ndim) == 2
    else:
        return None
    weight = _constant(value.args[1], bindings)
    bias = bindings.constant(value.args[2]) if len(value.args) == 3 else None
    if not fits or weight is None or (len(value.args) == 3 and bias is None):
        return None
    if is_call_to(value, MATMUL) and weight.ndim != 2:
        return None

    def scaled(scale: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        own = None if bias is None else bias.astype(np.float64) * scale
        return scaled_weight(weight, scale, axis), own

    return scaled


def _constant(expr: relax.Expr, bindings: Bindings) -> np.ndarray | None:
    """A constant, also through transposes, in which PyTorch's linear layers keep theirs."""
    value = bindings.value(expr)
    if is_call_to(value, "relax.permute_dims"):
        inner = _constant(value.args[0], bindings)
        axes = value.attrs.axes
        order = None if axes is None else [int(axis) for axis in axes]
        return None if inner is None else inner.transpose(order)
    return bindings.constant(expr)


def _is_plain_layout(conv: relax.Call) -> bool:
    return is_call_to(conv, WINOGRAD) or (
        conv.attrs.kernel_layout == "OIHW" and conv.attrs.out_layout == "NCHW"
    )


# ---- into the layer after ----------------------------------------------------------------------


def _into_weights_after(func: relax.Function) -> relax.Function:
    bindings = Bindings(func)
    values: dict[relax.Var, relax.Expr] = {}
    before: dict[relax.Var, list[relax.VarBinding]] = {}
    dropped: set[relax.Var] = set()
    for binding in bindings.order:
        source = _source(binding.value)
        if source is None or binding.var in dropped:
            continue
        chain = chain_at(source, binding.var, bindings)
        if chain is None or not chain.scales:
            continue
        user = bindings.only_user(chain.result)
        conv = bindings.value(user) if user is not None else None
        folded = _unpadded(conv, chain, bindings)
        if folded is None:
            continue
        weight, bias = folded
        call = relax.Call(conv.op, [source, constant(weight)], conv.attrs)
        # Under its old name, by which the layer is known.
        inner = type(chain.result)(user.name, user.ty)
        before[user] = [relax.VarBinding(inner, call)]
        values[user] = relax.op.add(inner, constant(bias.reshape(1, -1, 1, 1)))
        dropped |= {*chain.inner, chain.result}
    return replaced(func, values, dropped, before) if values else func


def _source(value: relax.Expr) -> relax.Var | None:
    """The data of an operator that a chain may begin with."""
    if is_call_to(value, BATCH_NORM):
        return value.args[0] if isinstance(value.args[0], relax.Var) else None
    if not any(is_call_to(value, name) for name in ARITHMETIC):
        return None
    variables = [arg for arg in value.args if isinstance(arg, relax.Var)]
    return variables[0] if variables else None


def _unpadded(
    conv: relax.Expr | None, chain: Affine, bindings: Bindings
) -> tuple[np.ndarray, np.ndarray] | None:
    """Weights and bias of a plain convolution without padding that take the chain in."""
    if not is_call_to(conv, CONV2D) or not conv.args[0].same_as(chain.result):
        return None
    weight, groups = bindings.constant(conv.args[1]), int(conv.attrs.groups)
    plain = _is_plain_layout(conv) and conv.attrs.data_layout == "NCHW"
    if weight is None or not plain or any(int(p) for p in conv.attrs.padding):
        return None
    # [groups, filters of a group, channels of a group, height, width]
    split = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
    scale = chain.scale.reshape(groups, 1, -1, 1, 1)
    shift = chain.shift.reshape(groups, 1, -1, 1, 1)
    bias = (split * shift).sum((2, 3, 4)).reshape(-1)
    return (split * scale).reshape(weight.shape).astype(np.float32), bias.astype(np.float32)


# ---- what is left ------------------------------------------------------------------------------


def _to_scale_and_shift(func: relax.Function) -> relax.Function:
    bindings = Bindings(func)
    values: dict[relax.Var, relax.Expr] = {}
    before: dict[relax.Var, list[relax.VarBinding]] = {}
    dropped: set[relax.Var] = set()
    for binding in bindings.order:
        if not is_call_to(binding.value, BATCH_NORM) or binding.var in dropped:
            continue
        source = _source(binding.value)
        chain = None if source is None else chain_at(source, binding.var, bindings)
        if chain is None:
            continue
        shape = (1, -1, *(1,) * (len(source.ty.shape.values) - 2))
        scale, shift = (v.astype(np.float32).reshape(shape) for v in (chain.scale, chain.shift))
        inner = type(binding.var)(f"{chain.result.name}_scaled", chain.result.ty)
        call = relax.op.multiply(source, constant(scale))
        before[chain.result] = [relax.VarBinding(inner, call)]
        values[chain.result] = relax.op.add(inner, constant(shift))
        dropped |= set(chain.inner)
    return replaced(func, values, dropped, before) if values else func
