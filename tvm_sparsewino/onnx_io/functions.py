"""Model-local functions: ours by their meaning, others by their bodies."""

from __future__ import annotations

import onnx
from onnx import helper, inliner

from ..errors import ImportFailed, in_context
from .body import MIN_OPSET, body, function
from .operator import DOMAIN, WinogradSpec, is_winograd, read_spec

# What a model may grow to when functions are replaced by their bodies; functions that call
# functions twice would otherwise fill any memory.
MAX_NODES = 200_000

_Key = tuple[str, str, str]


def with_own_functions(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """``model`` with a body of our making for each node of our operator, in place.

    What the file says a function of our domain does is replaced: the attributes count.

    Raises:
        ImportFailed: a node that cannot be one of ours, or an opset before the body's operators.
    """
    others = [f for f in model.functions if f.domain != DOMAIN]
    own: dict[str, onnx.FunctionProto] = {}
    for node in model.graph.node:
        if is_winograd(node):
            with in_context(f"node {node.name or node.output[0]!r}"):
                if opset < MIN_OPSET:
                    raise ImportFailed(f"our operator needs opset {MIN_OPSET}, this is {opset}")
                spec = read_spec(node)
            node.overload = spec.overload
            own.setdefault(spec.overload, function(spec, opset))
    del model.functions[:]
    model.functions.extend([*others, *own.values()])
    if own:
        model.ir_version = max(model.ir_version, 10)  # the first with overloads
        _import_domain(model)
    return model


def without_foreign_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with every function that is not ours replaced by its body.

    Raises:
        ImportFailed: functions that call themselves, or that make more than ``MAX_NODES`` nodes.
    """
    foreign = {_key(f): f for f in model.functions if f.domain != DOMAIN}
    if not foreign:
        return model
    sizes: dict[_Key, int] = {}
    total = sum(_size(node, foreign, sizes, ()) for node in model.graph.node)
    if total > MAX_NODES:
        raise ImportFailed(f"its functions make {total} nodes, at most {MAX_NODES} are accepted")
    try:
        return inliner.inline_selected_functions(model, [(d, n) for d, n, _ in foreign])
    except Exception as error:  # the inliner's kinds are not documented
        raise ImportFailed(f"its functions cannot be put in place: {error}") from error


def inlined(node: onnx.NodeProto, spec: WinogradSpec) -> list[onnx.NodeProto]:
    """The nodes of the body in place of ``node``, named after it."""
    prefix = node.name or node.output[0]
    names = dict(zip(("data", "weight", "bias"), node.input, strict=False))
    names["output"] = node.output[0]
    result = []
    for inner in body(spec):
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        copy.name = f"{prefix}/{inner.name}"
        for values in (copy.input, copy.output):
            renamed = [names.get(value, f"{prefix}/{value}") for value in values]
            del values[:]
            values.extend(renamed)
        result.append(copy)
    return result


def _import_domain(model: onnx.ModelProto) -> None:
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _key(item: onnx.FunctionProto | onnx.NodeProto) -> _Key:
    name = item.name if isinstance(item, onnx.FunctionProto) else item.op_type
    return item.domain, name, item.overload


def _size(
    node: onnx.NodeProto,
    functions: dict[_Key, onnx.FunctionProto],
    sizes: dict[_Key, int],
    active: tuple[_Key, ...],
) -> int:
    """Nodes that ``node`` becomes, those of branches inside of it not included."""
    key = _key(node)
    if key not in functions:
        return 1
    if key in active:
        raise ImportFailed(f"function {key[1]!r} calls itself")
    if key not in sizes:
        inner = functions[key].node
        sizes[key] = sum(_size(n, functions, sizes, (*active, key)) for n in inner)
    return sizes[key]
