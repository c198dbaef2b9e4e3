"""Import ONNX networks into Relay: TVM's converters operator by operator, ours where they differ.

TVM's own importer looks at no domain and has no place for operators from outside, so the walk over
the nodes is here and only its converters are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relay
from tvm.ir import IRModule
from tvm.relay.frontend import onnx as tvm_onnx

from ...errors import ImportFailed, in_context
from ...onnx_graph import GraphNode, OnnxGraph
from ..onnx_nodes import (
    by_name,
    check_supported,
    clip_bounds,
    converting,
    is_winograd,
    norm_epsilon,
    winograd_options,
)
from .graph import named_constant
from .ops import winograd_conv2d

Operands = Sequence[relay.Expr | None]


def import_onnx_graph(graph: OnnxGraph) -> IRModule:
    """A network from ONNX as a module in Relay, weights as constants that name their layers.

    The function is called "main" and takes the network's inputs by their names.

    Raises:
        ImportFailed: operators that cannot be imported (all are named, with their nodes), or one
            that does not fit its operands.
    """
    converters = tvm_onnx._get_convert_map(graph.opset)
    check_supported(graph.nodes, lambda kind: kind in converters)
    return _Importer(graph, converters).run()


class _Importer:
    """One walk over the nodes; ``values`` holds what their outputs have become."""

    def __init__(self, graph: OnnxGraph, converters: Mapping[str, Any]) -> None:
        self.graph, self.converters = graph, converters
        self.values: dict[str, relay.Expr] = {}

    def run(self) -> IRModule:
        inputs = [relay.var(i.name, shape=i.shape, dtype=i.dtype) for i in self.graph.inputs]
        self.values.update({var.name_hint: var for var in inputs})
        for node in self.graph.nodes:
            with in_context(f"node {node.name!r} ({node.op_type})"):
                self._convert(node)
        outputs = [self._value(name) for name in self.graph.outputs]
        body = outputs[0] if len(outputs) == 1 else relay.Tuple(outputs)
        return relay.transform.InferType()(IRModule.from_expr(relay.Function(inputs, body)))

    def _value(self, name: str, layer: str = "") -> relay.Expr | None:
        """A value by its name, None for an optional one that is left out.

        A constant that is a layer's weight says which layer it belongs to.
        """
        if not name or name in self.values:
            return self.values.get(name)
        if name not in self.graph.constants:
            raise ImportFailed(f"nothing computes {name!r}")
        constant = named_constant(self.graph.constants[name], f"{layer}.weight" if layer else name)
        if not layer:
            self.values[name] = constant
        return constant

    def _convert(self, node: GraphNode) -> None:
        has_weight = node.op_type == "Conv" or is_winograd(node)
        operands = [
            self._value(name, node.name if has_weight and place == 1 else "")
            for place, name in enumerate(node.inputs)
        ]
        convert = _winograd if is_winograd(node) else _OWN.get(node.op_type, _by_tvm)
        with converting(line=-1):
            result = convert(self, operands, node)
        self.values.update(by_name(node, _split_tuple(result)))


def _split_tuple(result: Any) -> list[relay.Expr]:
    """The results of an operator one by one."""
    if not isinstance(result, relay.expr.TupleWrapper):
        return [result]
    made = result.astuple()
    return list(made.fields) if isinstance(made, relay.Tuple) else list(result)


# ---- converters --------------------------------------------------------------------------------


def _by_tvm(importer: _Importer, operands: Operands, node: GraphNode) -> Any:
    """What TVM's converter makes of ``node``."""
    attributes = dict(node.attributes)
    attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
    inputs = tvm_onnx.onnx_input()
    for operand in operands:
        inputs.append(operand)
    return importer.converters[node.op_type](inputs, attributes, {})


def _winograd(_importer: _Importer, operands: Operands, node: GraphNode) -> relay.Expr:
    result = winograd_conv2d(*operands[:2], **winograd_options(node))
    return relay.nn.bias_add(result, operands[2]) if len(operands) == 3 else result


def _batch_norm(_importer: _Importer, operands: Operands, node: GraphNode) -> relay.Expr:
    return relay.nn.batch_norm(*operands, axis=1, epsilon=norm_epsilon(node))[0]


def _prelu(importer: _Importer, operands: Operands, node: GraphNode) -> Any:
    """A slope per channel becomes ``nn.prelu`` along channels, which an epilogue can take."""
    x, slope = operands
    shape = tuple(int(d) for d in tvm_onnx.infer_shape(x))
    values = _known(slope)
    if values is None or len(shape) != 4 or values.shape[-3:] != (shape[1], 1, 1):
        return _by_tvm(importer, operands, node)
    return relay.nn.prelu(x, relay.const(values.reshape(-1)), axis=1)


def _clip(importer: _Importer, operands: Operands, node: GraphNode) -> Any:
    """Bounds that are known become ``clip`` at once; TVM would compile a program to read them."""
    bounds = clip_bounds(node, operands[1:], _known)
    return _by_tvm(importer, operands, node) if bounds is None else relay.clip(operands[0], *bounds)


def _known(operand: relay.Expr) -> np.ndarray | None:
    return operand.data.numpy() if isinstance(operand, relay.Constant) else None


_OWN: dict[str, Callable[[_Importer, Operands, GraphNode], Any]] = {
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "PRelu": _prelu,
}
