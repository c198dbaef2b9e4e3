"""Import ONNX networks into Relax: TVM's converters operator by operator, ours where they differ.

TVM's own importer prints its operands when a converter fails, knows no operators but ONNX's, and
names no nodes in its messages; so the walk over the nodes is here and only its converters are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import IRModule

from .._compat import constant, constant_array, onnx_converters
from ..errors import ImportFailed, SparseWinoError, in_context
from ..onnx_graph import GraphNode, OnnxGraph
from . import onnx_conv
from .onnx_arguments import checked_attributes
from .onnx_nodes import (
    by_name,
    check_supported,
    clip_bounds,
    converting,
    is_winograd,
    norm_epsilon,
    winograd_options,
)
from .ops import static_shape, winograd_conv2d
from .patterns import LAYER_NAMES

# TVM converts these, but only float32 networks are in scope.
_QUANTISED = frozenset(
    (
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "MatMulInteger16",
    )
)
# Operators of other domains that TVM has among ONNX's own.
_FOREIGN = frozenset(("AllClassNMS", "FastGelu", "BiasGelu", "EmbedLayerNormalization"))
# TVM's converters of these take shapes as Relax's shapes; all others need tensors.
_TAKE_SHAPES = frozenset(
    (
        "Cast",
        "CastLike",
        "Concat",
        "ConstantOfShape",
        "Equal",
        "Expand",
        "Gather",
        "Reshape",
        "Resize",
        "Shape",
        "Slice",
        "Squeeze",
        "Where",
    )
)


def import_onnx_graph(graph: OnnxGraph) -> IRModule:
    """A network from ONNX as an IRModule, weights as constants.

    The function is called "main" and takes the network's inputs by their names. Arrays are taken
    out of ``graph.constants`` as they are used, so that they are not kept twice.

    Raises:
        ImportFailed: operators that cannot be imported (all are named, with their nodes), or one
            that does not fit its operands.
    """
    converters = onnx_converters()
    check_supported(graph.nodes, lambda kind: _is_known(kind, converters))
    return _Importer(graph, converters).run()


def _is_known(kind: str, converters: Mapping[str, Any]) -> bool:
    return kind not in (_QUANTISED | _FOREIGN) and (kind in _OWN or kind in converters)


class _Importer:
    """One walk over the nodes; ``values`` holds what their outputs have become."""

    def __init__(self, graph: OnnxGraph, converters: Mapping[str, Any]) -> None:
        self.graph, self.converters = graph, converters
        self.builder = relax.BlockBuilder()
        self.values: dict[str, relax.Expr] = {}
        self.layers: dict[str, str] = {}

    def run(self) -> IRModule:
        params = [relax.Var(i.name, relax.TensorType(i.shape, i.dtype)) for i in self.graph.inputs]
        self.values.update({p.name: p for p in params})
        failure = None
        with self.builder.function("main", params):
            with self.builder.dataflow():
                try:
                    result = self._walk()
                except SparseWinoError as error:
                    # The builder complains on stderr about a function that is left open.
                    failure, result = error, relax.const(0, "int64")
                output = self.builder.emit_output(self.builder.normalize(result))
            self.builder.emit_func_output(output)
        if failure is not None:
            raise failure
        mod = self.builder.get()
        func = relax.analysis.remove_all_unused(mod["main"])
        mod["main"] = func.with_attr(LAYER_NAMES, self.layers)
        return mod

    def _walk(self) -> relax.Expr:
        """Convert every node; what the function returns."""
        for node in self.graph.nodes:
            with in_context(f"node {node.name!r} ({node.op_type})"):
                self._convert(node)
        outputs = [_as_tensor(self._value(name)) for name in self.graph.outputs]
        return outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)

    def _value(self, name: str) -> relax.Expr | None:
        """A value by its name, None for an optional one that is left out."""
        if name and name not in self.values:
            if name not in self.graph.constants:
                raise ImportFailed(f"nothing computes {name!r}")
            self.values[name] = constant(self.graph.constants.pop(name))
        return self.values[name] if name else None

    def _convert(self, node: GraphNode) -> None:
        operands = [self._value(name) for name in node.inputs]
        while operands and operands[-1] is None:
            operands.pop()
        if node.op_type not in _TAKE_SHAPES:
            operands = [_as_tensor(operand) for operand in operands]
        convert = _winograd if is_winograd(node) else _OWN.get(node.op_type, _by_tvm)
        with converting(line=0):
            result = convert(self, operands, node)
        self.values.update(by_name(node, _split_tuple(self.builder, result)))

    def named(self, var: relax.Var, node: GraphNode) -> relax.Var:
        """Note which layer a convolution's variable belongs to."""
        self.layers[var.name] = node.name
        return var


class _OptionalInputs(list):
    """Operands as TVM's converters expect them: None beyond the last."""

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(max(len(self), item.stop or 0)))]
        return super().__getitem__(item) if item < len(self) else None


def _as_tensor(value: Any) -> Any:
    """A known shape as a tensor of int64; anything else as it is."""
    if isinstance(value, relax.ShapeExpr):
        return constant(np.array([int(d) for d in value.values], np.int64))
    return value


def _split_tuple(builder: relax.BlockBuilder, result: Any) -> list[Any]:
    """The results of an operator one by one."""
    if isinstance(result, relax.Tuple):
        return [builder.normalize(field) for field in result.fields]
    if isinstance(result.ty, relax.TupleType):
        count = len(result.ty.fields)
        return [builder.emit(relax.TupleGetItem(result, i)) for i in range(count)]
    return [result]


# ---- converters --------------------------------------------------------------------------------


def _by_tvm(importer: _Importer, operands: Sequence[Any], node: GraphNode) -> relax.Expr:
    """What TVM's converter makes of ``node``."""
    attributes = checked_attributes(node, operands)
    attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
    convert = importer.converters[node.op_type].get_converter(importer.graph.opset)
    values = [importer.values, {}]  # the second one holds parameters; there are none
    result = convert(importer.builder, _OptionalInputs(operands), attributes, values)
    return importer.builder.normalize(result)


def _winograd(importer: _Importer, operands: Sequence[Any], node: GraphNode) -> relax.Var:
    call = winograd_conv2d(*operands, **winograd_options(node))
    return importer.named(importer.builder.emit(call), node)


def _conv(importer: _Importer, operands: Sequence[Any], node: GraphNode) -> relax.Var:
    builder = importer.builder
    result = importer.named(onnx_conv.conv(builder, operands, node.attributes), node)
    return result if len(operands) < 3 else onnx_conv.add_bias(builder, result, operands[2])


def _product(importer: _Importer, operands: Sequence[Any], node: GraphNode) -> relax.Expr:
    """Gemm or MatMul by TVM; the product in it is named as the layer."""
    result = importer.builder.emit(_by_tvm(importer, operands, node))
    var = result
    while isinstance(var, relax.Var):
        call = importer.builder.lookup_binding(var)
        name = getattr(getattr(call, "op", None), "name", "")
        if name == "relax.matmul":
            importer.named(var, node)
        var = call.args[0] if name in ("relax.add", "relax.multiply") else None
    return result


def _conv_transpose(importer: _Importer, operands: Sequence[Any], node: GraphNode) -> relax.Var:
    builder = importer.builder
    result = onnx_conv.conv_transpose(builder, operands, node.attributes)
    return result if len(operands) < 3 else onnx_conv.add_bias(builder, result, operands[2])


def _batch_norm(importer: _Importer, operands: Sequence[Any], node: GraphNode) -> relax.Var:
    epsilon = norm_epsilon(node)
    call = relax.op.nn.batch_norm(*operands, axis=1, epsilon=epsilon, training=False)
    return importer.builder.emit(relax.TupleGetItem(importer.builder.emit(call), 0))


def _clip(importer: _Importer, operands: Sequence[Any], node: GraphNode) -> relax.Var:
    """Bounds that are known become ``relax.clip``, which a convolution's epilogue can take."""
    bounds = clip_bounds(node, operands[1:], constant_array)
    if bounds is None:
        return _by_tvm(importer, operands, node)
    return importer.builder.emit(relax.op.clip(operands[0], *bounds))


def _prelu(importer: _Importer, operands: Sequence[Any], node: GraphNode) -> relax.Var:
    """A slope per channel becomes ``relax.nn.prelu``, which a convolution's epilogue can take."""
    (x, slope), builder = operands, importer.builder
    data, shape = static_shape(x, "data"), static_shape(slope, "slope")
    if len(data) > 1 and (1,) * (len(data) - len(shape)) + shape == _per_channel(data):
        vector = builder.emit(relax.op.reshape(slope, [data[1]]))
        return builder.emit(relax.op.nn.prelu(x, vector, axis=1))
    scaled = builder.emit(relax.op.multiply(x, slope))
    negative = builder.emit(relax.op.less(x, relax.const(0, "float32")))
    return builder.emit(relax.op.where(negative, scaled, x))


def _of_several(combine: Callable[..., relax.Expr]) -> Callable[..., relax.Var]:
    """An operator of any number of operands as one of two, step by step.

    TVM's own stacks all of them first, which no kernel can take a residual from.
    """

    def convert(importer: _Importer, operands: Sequence[Any], _node: GraphNode) -> relax.Expr:
        result = operands[0]
        for operand in operands[1:]:
            result = importer.builder.emit(combine(result, operand))
        return importer.builder.normalize(result)

    return convert


def _per_channel(data: tuple[int, ...]) -> tuple[int, ...]:
    return (1, data[1], *(1 for _ in data[2:]))


_OWN: dict[str, Callable[[_Importer, Sequence[Any], GraphNode], relax.Expr]] = {
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _product,
    "MatMul": _product,
    "Max": _of_several(relax.op.maximum),
    "Min": _of_several(relax.op.minimum),
    "PRelu": _prelu,
    "Sum": _of_several(relax.op.add),
}
