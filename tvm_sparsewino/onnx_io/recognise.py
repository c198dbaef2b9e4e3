"""Recognise our operator where its body has replaced it.

The Conv that transforms the input gives a candidate away: its filters are B^T (x) B^T and its
stride is m. Whether everything around it is our body, too, is found by walking the body backwards
from its output next to the graph; names do not matter, constants must be equal. Anything that
differs leaves the nodes as they are, which is as right and much slower.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..cook_toom import canonical_points, cook_toom, points_to_text
from ..errors import SparseWinoError
from ..weights import MAX_ALPHA
from .body import body, input_filters
from .operator import DOMAIN, OP_TYPE, WinogradSpec, attributes

# From the transformed input on, what uses what, up to the node before the output.
_WAY = ("Reshape", "Transpose", "MatMul", "Transpose", "Reshape", "ConvTranspose", "Reshape")


def fold_bodies(graph: onnx.GraphProto, constants: dict[str, np.ndarray]) -> list[str]:
    """Replace every body of our operator in ``graph`` by the operator, in place.

    Returns:
        names of layers that begin with the transform of an input, as ours do, but go on otherwise.
    """
    index = _Index(graph, constants)
    replaced: dict[str, onnx.NodeProto] = {}  # by the output's name
    unknown: list[str] = []
    for conv in graph.node:
        algorithm = _transform(conv, index)
        if algorithm is None:
            continue
        node = _find(conv, *algorithm, index)
        if node is None:
            unknown.append(_layer(conv))
        else:
            replaced[node.output[0]] = node
    if replaced:
        nodes = [replaced.get(node.output[0] if node.output else "", node) for node in graph.node]
        used = _used(nodes, {output.name for output in graph.output})
        kept = [node for node, wanted in zip(nodes, used, strict=True) if wanted]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
    return unknown


class _Index:
    """Who makes a value, who uses it, and what it is if it is known."""

    def __init__(self, graph: onnx.GraphProto, constants: dict[str, np.ndarray]) -> None:
        self.constants = dict(constants)
        self.producer: dict[str, onnx.NodeProto] = {}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            if node.op_type == "Constant" and len(node.attribute) == 1:
                value = _constant(node)
                if value is not None:
                    self.constants[node.output[0]] = value
            for name in node.output:
                self.producer[name] = node
            for name in node.input:
                self.users.setdefault(name, []).append(node)


def _constant(node: onnx.NodeProto) -> np.ndarray | None:
    """The value of a Constant node in its usual form."""
    attribute = node.attribute[0]
    if attribute.name != "value":
        return None
    try:
        return numpy_helper.to_array(attribute.t)
    except Exception:  # a damaged tensor; whoever needs the value reports it
        return None


def _transform(conv: onnx.NodeProto, index: _Index) -> tuple[int, int, tuple[int, ...]] | None:
    """m, r and padding if ``conv`` transforms an input like one of ours."""
    filters = index.constants.get(conv.input[1]) if len(conv.input) == 2 else None
    if conv.op_type != "Conv" or filters is None or filters.ndim != 4:
        return None
    values = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    alpha, strides = filters.shape[2], list(values.get("strides", []))
    if len(strides) != 2 or not 1 <= strides[0] <= alpha <= MAX_ALPHA:
        return None
    m, pads = strides[0], list(values.get("pads", [0] * 4))
    if filters.shape != (alpha**2, 1, alpha, alpha) or alpha == 1:
        return None
    if not np.array_equal(filters, input_filters(cook_toom(m, alpha - m + 1))):
        return None
    padding = (*pads[:2], *(p - m + 1 for p in pads[2:]))
    return m, alpha - m + 1, padding


def _layer(conv: onnx.NodeProto) -> str:
    """The layer's name as the Conv of the input transform carries it."""
    return (conv.name or conv.output[0]).removesuffix("/tiles")


def _find(
    conv: onnx.NodeProto, m: int, r: int, padding: tuple[int, ...], index: _Index
) -> onnx.NodeProto | None:
    """The node of our operator that the body around ``conv`` stands for."""
    relu = _only(index, conv.output[0], "Relu")
    product, last = None, conv if relu is None else relu
    for op_type in _WAY:
        last = _only(index, last.output[0], op_type)
        if last is None:
            return None
        product = last if op_type == "MatMul" else product
    for bias, output in _ends(last, index):
        for groups in _groups(product, index):
            points = points_to_text(canonical_points(m, r))
            spec = WinogradSpec(m, r, padding, groups, bias, points, relu is not None)
            operands = _match(spec, output, index)
            if operands is not None:
                return helper.make_node(
                    OP_TYPE,
                    operands,
                    [output],
                    name=_layer(conv),
                    domain=DOMAIN,
                    **attributes(m, r, padding, groups, relu=spec.relu),
                )
    return None


def _only(index: _Index, value: str, op_type: str) -> onnx.NodeProto | None:
    """The one node of ``op_type`` that uses ``value``."""
    found = [node for node in index.users.get(value, []) if node.op_type == op_type]
    return found[0] if len(found) == 1 else None


def _ends(whole: onnx.NodeProto, index: _Index) -> Iterator[tuple[bool, str]]:
    """Where the body may end: behind the bias, or behind the crop."""
    crop = _only(index, whole.output[0], "Slice")
    if crop is not None:
        for user in index.users.get(crop.output[0], []):
            if user.op_type == "Add":
                yield True, user.output[0]
        yield False, crop.output[0]


def _groups(product: onnx.NodeProto, index: _Index) -> Iterator[int]:
    """Groups as the shape of the coefficients says: [alpha^2, 1, groups, K/groups, C/groups]."""
    reshape = index.producer.get(product.input[0])
    concat = index.producer.get(reshape.input[1]) if reshape and len(reshape.input) > 1 else None
    shape = index.constants.get(concat.input[0]) if concat and concat.input else None
    if shape is not None and shape.ndim == 1 and shape.size > 2 and int(shape[2]) >= 1:
        yield int(shape[2])


def _match(spec: WinogradSpec, output: str, index: _Index) -> list[str] | None:
    """The operands if the graph computes ``output`` exactly as the body of ``spec`` does."""
    try:
        producers = {node.output[0]: node for node in body(spec)}
    except SparseWinoError:
        return None
    inputs = ["data", "weight", "bias"] if spec.bias else ["data", "weight"]
    found: dict[str, str] = {}
    pending = [("output", output)]
    while pending:
        ours, theirs = pending.pop()
        if ours in found:
            if found[ours] != theirs and producers[ours].op_type != "Constant":
                return None
            continue
        found[ours] = theirs
        if ours in inputs:
            continue
        wanted, node = producers[ours], index.producer.get(theirs)
        if wanted.op_type == "Constant":
            value = index.constants.get(theirs)
            if value is None or not _same(value, numpy_helper.to_array(wanted.attribute[0].t)):
                return None
            continue
        if node is None or not _alike(wanted, node):
            return None
        pending += zip(wanted.input, node.input, strict=True)
    return [found[name] for name in inputs]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))


def _alike(wanted: onnx.NodeProto, node: onnx.NodeProto) -> bool:
    """Whether two nodes do the same with their inputs."""
    if node.op_type != wanted.op_type or node.domain not in ("", "ai.onnx"):
        return False
    if len(node.input) != len(wanted.input) or len(node.output) != 1:
        return False
    ours, theirs = (
        {a.name: helper.get_attribute_value(a) for a in n.attribute} for n in (wanted, node)
    )
    return ours == theirs


def _used(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[bool]:
    """Which nodes lead to a wanted value; nodes are in order of execution."""
    wanted, result = set(wanted), []
    for node in reversed(nodes):
        result.append(any(name in wanted for name in node.output))
        if result[-1]:
            wanted.update(node.input)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    wanted.update(name for inner in graph.node for name in inner.input)
    return result[::-1]
