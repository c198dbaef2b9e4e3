"""Bring a module from any Relay frontend into the form that planning expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relay
from tvm.ir import IRModule

from .fold_batch_norm import FoldBatchNorm
from .graph import Graph, is_call_to, is_graph, map_functions, named_constant, rebuilt
from .patterns import CONV2D, layer_name


def prepare(mod: IRModule, params: Mapping[str, Any] | None = None) -> IRModule:
    """Bind parameters, note the layers' names, make everything NCHW, fold BatchNorm.

    Args:
        mod: a module in Relay, which stays as it is.
        params: parameters of its function "main" by name: NumPy arrays or TVM's.
    """
    return FoldBatchNorm()(named(mod, params))


def named(mod: IRModule, params: Mapping[str, Any] | None = None) -> IRModule:
    """As :func:`prepare`, with BatchNorm left where it is.

    The names are kept where no pass loses them: in the source of each convolution's weights.
    """
    mod = relay.transform.InferType()(_bound(mod, dict(params or {})))
    mod = map_functions(mod, _with_names)
    mod = relay.transform.FoldExplicitPadding()(mod)
    mod = relay.transform.InferType()(mod)
    if _has_other_layouts(mod):
        with tvm.transform.PassContext(opt_level=3):  # this pass runs at level 3 only
            mod = relay.transform.ConvertLayout({CONV2D: ["NCHW", "default"]})(mod)
        mod = relay.transform.InferType()(mod)
    return mod


def _bound(mod: IRModule, params: dict[str, Any]) -> IRModule:
    """``mod`` with parameters as constants that keep their names."""
    result = IRModule(mod.functions, mod.type_definitions, attrs=mod.attrs)
    if params:
        func = mod["main"]
        known = {var.name_hint: var for var in func.params}
        values = {
            known[name]: named_constant(_array(value), name)
            for name, value in params.items()
            if name in known
        }
        result["main"] = relay.bind(func, values)
    return result


def _array(value: Any) -> Any:
    return value.numpy() if hasattr(value, "numpy") else value


def _with_names(func: relay.Function) -> relay.Function:
    """Weights that name their layers; items of tuples that are known are no items any more."""
    graph = Graph(func)
    replacements, convs = {}, 0
    for expr in graph.order:
        if is_call_to(expr, CONV2D):
            name = layer_name(expr) or f"conv2d_{convs}"
            convs += 1
            weight = graph.constant(expr.args[1])
            if weight is not None:
                replacements[expr] = _named_call(expr, named_constant(weight, f"{name}.weight"))
        elif isinstance(expr, relay.TupleGetItem) and isinstance(expr.tuple_value, relay.Tuple):
            replacements[expr] = _field(expr.tuple_value.fields[expr.index])
    return rebuilt(graph, replacements) if replacements else func


def _field(expr: relay.Expr) -> Any:
    return lambda new: new(expr)


def _named_call(call: relay.Call, weight: relay.Constant) -> Any:
    return lambda new: relay.Call(call.op, [new(call.args[0]), weight], call.attrs)


def _has_other_layouts(mod: IRModule) -> bool:
    found: list[str] = []

    def look(expr: relay.Expr) -> None:
        if is_call_to(expr, CONV2D):
            found.append(expr.attrs.data_layout)

    for func in mod.functions.values():
        if is_graph(func):
            relay.analysis.post_order_visit(func, look)
    return any(layout != "NCHW" for layout in found)
