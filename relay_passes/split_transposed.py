"""Rewrite transposed convolutions as convolutions, so that planner and kernels serve them, too."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from .._compat import constant
from ..errors import ShapeError
from .bindings import Bindings, map_functions
from .ops import CONV2D_TRANSPOSE, is_call_to, static_shape
from .patterns import LAYER_NAMES


@tvm.transform.module_pass(opt_level=0, name="SplitTransposed")
class SplitTransposed:
    """Split transposed convolutions into their phases.

    ``conv2d_transpose(x, w)`` of stride s and an r x r filter becomes a convolution of stride 1
    with K s^2 output channels and filters of ceil(r / s) taps per dimension, one set for every
    remainder of the output's position by s, then a permutation that puts them in place and a
    crop to the output. With r = s, as in U-Nets, it is a 1x1 convolution.

    Checked: constant weights, NCHW, dilation 1, a known shape; others stay as they are. The
    convolution keeps the layer's name. TVM's own lowering multiplies with the zeros between the
    inputs, s^2 times the work.
    """

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod``."""
        return map_functions(mod, _rewrite)


def _rewrite(func: relax.Function) -> relax.Function:
    bindings = Bindings(func)
    found = {}
    for binding in bindings.order:
        if is_call_to(binding.value, CONV2D_TRANSPOSE):
            weight = bindings.constant(binding.value.args[1])
            if weight is not None and _is_known(binding.value):
                found[binding.var] = weight
    if not found:
        return func
    builder, names = relax.BlockBuilder(), _names(func)
    blocks = []
    for block in func.body.blocks:
        is_dataflow = isinstance(block, relax.DataflowBlock)
        kept: list[relax.Binding] = []
        for binding in block.bindings:
            weight = found.get(binding.var)
            if weight is None:
                kept.append(binding)
                continue
            kept += _phases(builder, binding, weight, is_dataflow)
            layer = binding.var.name
            names[kept[-_STEPS].var.name] = names.get(layer, layer)
        blocks.append((relax.DataflowBlock if is_dataflow else relax.BindingBlock)(kept))
    body = builder.normalize(relax.SeqExpr(blocks, func.body.body))
    made = relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs)
    return relax.analysis.remove_all_unused(made.with_attr(LAYER_NAMES, names))


def _names(func: relax.Function) -> dict[str, str]:
    given = func.attrs.get(LAYER_NAMES, {}) if func.attrs else {}
    return {str(variable): str(layer) for variable, layer in given.items()}


def _is_known(call: relax.Call) -> bool:
    attrs = call.attrs
    layouts = attrs.data_layout, attrs.kernel_layout, attrs.out_layout
    try:
        static_shape(call.args[0], "data")
    except ShapeError:
        return False
    return layouts == ("NCHW", "IOHW", "NCHW") and all(int(d) == 1 for d in attrs.dilation)


# What a transposed convolution becomes: convolution, reshape, permutation, reshape, crop.
_STEPS = 5


def _phases(
    builder: relax.BlockBuilder, binding: relax.VarBinding, weight: np.ndarray, is_dataflow: bool
) -> list[relax.VarBinding]:
    """The bindings in place of one; the last defines the same variable, the first is the layer."""
    call, kind = binding.value, relax.DataflowVar if is_dataflow else relax.Var
    made: list[relax.VarBinding] = []

    def emit(value: relax.Expr, suffix: str) -> relax.Var:
        value = builder.normalize(value)
        made.append(relax.VarBinding(kind(f"{binding.var.name}_{suffix}", value.ty), value))
        return made[-1].var

    n, _, h, w = static_shape(call.args[0], "data")
    _, k, oh, ow = (int(d) for d in call.ty.shape.values)
    strides, groups = [int(s) for s in call.attrs.strides], int(call.attrs.groups)
    top, left = (int(p) for p in call.attrs.padding[:2])
    filters, taps = phase_filters(weight, strides, groups)
    # Rows and columns of every phase; more than inputs reach where the output goes on.
    rows = max(h + taps[0] - 1, -(-(oh + top) // strides[0]))
    columns = max(w + taps[1] - 1, -(-(ow + left) // strides[1]))
    padding = [taps[0] - 1, taps[1] - 1, rows - h, columns - w]
    conv = relax.op.nn.conv2d(call.args[0], constant(filters), padding=padding, groups=groups)
    result = emit(conv, "phases")
    result = emit(relax.op.reshape(result, (n, k, *strides, rows, columns)), "split")
    result = emit(relax.op.permute_dims(result, (0, 1, 4, 2, 5, 3)), "ordered")
    whole = (n, k, rows * strides[0], columns * strides[1])
    result = emit(relax.op.reshape(result, whole), "whole")
    crop = relax.op.strided_slice(result, [2, 3], [top, left], [top + oh, left + ow])
    made.append(relax.VarBinding(binding.var, builder.normalize(crop)))
    return made


def phase_filters(
    weight: np.ndarray, strides: list[int], groups: int
) -> tuple[np.ndarray, list[int]]:
    """Weights [C, K/groups, r, s] of a transposed convolution as those of a convolution.

    Returns:
        float32 [K * phases, C/groups, taps, taps], channels ordered (k, row phase, column phase),
        and the taps per dimension.
    """
    c, per_group, *sizes = weight.shape
    taps = [-(-size // s) for size, s in zip(sizes, strides, strict=True)]
    full = np.zeros((c, per_group, *(t * s for t, s in zip(taps, strides, strict=True))), "float32")
    full[:, :, : sizes[0], : sizes[1]] = weight
    # Taps run backwards: an input reaches the outputs that follow it.
    split = full.reshape(groups, c // groups, per_group, taps[0], strides[0], taps[1], strides[1])
    ordered = split[:, :, :, ::-1, :, ::-1].transpose(0, 2, 4, 6, 1, 3, 5)
    return np.ascontiguousarray(ordered.reshape(-1, c // groups, *taps)), taps
