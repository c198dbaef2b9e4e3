"""From an ONNX file to plain data: read, bind shapes, recognise our operator, fold constants."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper, shape_inference

from ..errors import ImportFailed
from ..onnx_graph import GraphNode, OnnxGraph
from .folding import Shape, fold
from .functions import with_own_functions, without_foreign_functions
from .metadata import inlined_layers
from .operator import is_winograd
from .reading import read
from .recognise import fold_bodies
from .shapes import bind_shapes


def load_graph(
    source: str | os.PathLike[str] | onnx.ModelProto,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    batch: int | None = None,
) -> OnnxGraph:
    """Read a model and bring it to the form that the importer takes.

    Args:
        source: a file, or a model in memory, which stays as it is.
        shapes: for inputs whose shapes the model leaves open.
        batch: stands for a first dimension that stays open; see :func:`.shapes.bind_shapes`.

    Raises:
        ImportFailed: a model that cannot be read.
        ShapeError: shapes that do not fit, or are missing.
    """
    try:
        return _load(source, shapes, batch)
    except UnicodeError as error:
        raise ImportFailed("damaged: it holds names that are no text") from error


def _load(
    source: str | os.PathLike[str] | onnx.ModelProto,
    shapes: Mapping[str, Sequence[int | str]] | None,
    batch: int | None,
) -> OnnxGraph:
    model = read(source)
    inputs, opened = bind_shapes(model, shapes, batch)
    proto = without_foreign_functions(with_own_functions(model.proto, model.opset))
    known_shapes = _shapes(proto)
    missed = fold_bodies(proto.graph, model.constants)
    _tell_what_is_lost(proto, missed)
    nodes, constants = fold(proto.graph.node, model.constants, known_shapes, model.opset)
    names = {name for node in nodes for name in node.input}
    names |= {output.name for output in proto.graph.output}
    return OnnxGraph(
        inputs,
        tuple(output.name for output in proto.graph.output),
        tuple(map(_plain, _named(nodes, model.constants.keys()))),
        {name: array for name, array in constants.items() if name in names},
        model.opset,
        opened.symbol if opened else "",
        opened.inputs if opened else (),
    )


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of values as far as ONNX can tell; what the file claims about them is ignored."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(bare, data_prop=True)
    except Exception:  # then nothing is known; the importer finds out what is wrong
        inferred = bare
    result: dict[str, Shape] = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            result[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    return result


def _tell_what_is_lost(model: onnx.ModelProto, missed: list[str]) -> None:
    """Warn about layers whose body another tool has changed."""
    present = {node.name for node in model.graph.node if is_winograd(node)}
    lost = sorted({*missed, *(set(inlined_layers(model)) - present)} - present)
    if lost:
        warnings.warn(
            f"these Winograd layers were changed by another tool and run as ordinary operators, "
            f"without sparse kernels: {lost}",
            stacklevel=4,
        )


def _named(
    nodes: Sequence[onnx.NodeProto], weights: object
) -> Sequence[tuple[str, onnx.NodeProto]]:
    """Nodes with the names that plans show.

    PyTorch's exporters name nodes by operator and weights by layer: "body.0.weight" belongs to
    the layer "body.0", as in PyTorch.
    """
    result = []
    for node in nodes:
        layer = next((i for i in node.input[1:2] if i in weights and i.endswith(".weight")), "")
        result.append((layer.removesuffix(".weight") or node.name or node.output[0], node))
    return result


def _plain(named: tuple[str, onnx.NodeProto]) -> GraphNode:
    name, node = named
    return GraphNode(
        node.op_type,
        "" if node.domain == "ai.onnx" else node.domain,
        name,
        tuple(node.input),
        tuple(node.output),
        {a.name: _attribute(a) for a in node.attribute},
    )


def _attribute(attribute: onnx.AttributeProto) -> object:
    value = helper.get_attribute_value(attribute)
    return tuple(value) if isinstance(value, list) or hasattr(value, "extend") else value
