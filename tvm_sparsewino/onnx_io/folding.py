"""Compute what does not depend on the inputs, so that weights are constants for the planner.

Frameworks wrap weights in reshapes and transposes, make them with ConstantOfShape, and compute
shapes from shapes that are known by now. Operators whose result may be larger than their operands
are measured first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ..errors import ImportFailed
from .reading import dtype_of

# All that folding may make, in elements: more than any network on a CPU has, less than a file of
# a few bytes could ask for.
MAX_ELEMENTS = 2**29

Shape = tuple[int, ...]


def _of_value(operands: Sequence[np.ndarray]) -> int:
    return math.prod(map(int, operands[0].reshape(-1)))


def _broadcast(operands: Sequence[np.ndarray]) -> int:
    return math.prod(np.broadcast_shapes(*(o.shape for o in operands)))


def _expanded(operands: Sequence[np.ndarray]) -> int:
    return math.prod(np.broadcast_shapes(operands[0].shape, tuple(map(int, operands[1]))))


def _tiled(operands: Sequence[np.ndarray]) -> int:
    return operands[0].size * math.prod(map(int, operands[1]))


def _range(operands: Sequence[np.ndarray]) -> int:
    start, limit, step = (float(o.reshape(())) for o in operands)
    return max(0, math.ceil((limit - start) / step))


def _joined(operands: Sequence[np.ndarray]) -> int:
    return sum(o.size for o in operands)


def _picked(operands: Sequence[np.ndarray]) -> int:
    data, indices = operands
    return data.size * max(indices.size, 1)


# Operator -> elements of its result, at most.
_RESULT_SIZE: dict[str, Callable[[Sequence[np.ndarray]], int]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Equal", "Where"), _broadcast),
    **dict.fromkeys(("Cast", "Floor", "Ceil", "Identity", "Neg", "Sqrt", "Size"), _joined),
    **dict.fromkeys(("Concat", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"), _joined),
    "ConstantOfShape": _of_value,
    "Expand": _expanded,
    "Gather": _picked,
    "Range": _range,
    "Tile": _tiled,
}


def fold(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape],
    opset: int,
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Compute the nodes whose operands are constants.

    Args:
        nodes: in order of execution.
        constants: value name -> array.
        shapes: of values, where they are known.
        opset: version of ONNX's own operators.

    Returns:
        the nodes that are left, and all constants.

    Raises:
        ImportFailed: constants that would be too large, or that cannot be computed; names the node.
    """
    known, left, made = dict(constants), [], 0
    for node in nodes:
        try:
            value = _value(node, known, shapes, opset, MAX_ELEMENTS - made)
        except ImportFailed:
            raise
        except Exception as error:  # whatever NumPy raises for operands that do not fit
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ImportFailed(f"{_name(node)} cannot be computed: {reason}") from error
        if value is None:
            left.append(node)
        else:
            known[node.output[0]] = value
            made += value.size
    return left, known


def _value(
    node: onnx.NodeProto,
    known: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape],
    opset: int,
    limit: int,
) -> np.ndarray | None:
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return None
    if node.op_type == "Shape" and (shape := _shape(node.input[0], known, shapes)) is not None:
        start, end = (_integer(node, name) for name in ("start", "end"))
        return np.array(shape[start:end], np.int64)
    if node.op_type == "Constant":
        return _evaluated(node, {}, opset)
    operands = [known.get(name) for name in node.input if name]
    if node.op_type not in _RESULT_SIZE or not operands or any(o is None for o in operands):
        return None
    size = _RESULT_SIZE[node.op_type](operands)
    if not 0 <= size <= limit:
        raise ImportFailed(f"{_name(node)} would make a constant of {size} elements")
    feeds = {name: known[name] for name in node.input if name}
    if node.op_type == "ConstantOfShape":
        value = _evaluated(node, {node.input[0]: np.array([1], np.int64)}, opset)
        return np.full(tuple(feeds[node.input[0]]), value[0], value.dtype)
    return _evaluated(node, feeds, opset)


def _shape(name: str, known: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> Shape | None:
    return known[name].shape if name in known else shapes.get(name)


def _evaluated(node: onnx.NodeProto, feeds: dict[str, np.ndarray], opset: int) -> np.ndarray | None:
    """What ``node`` computes, None for something else than a tensor of a supported type."""
    inputs = [onnx.ValueInfoProto(name=name) for name in feeds]
    output = onnx.ValueInfoProto(name=node.output[0])
    graph = onnx.helper.make_graph([node], "fold", inputs, [output])
    result = ReferenceEvaluator(graph, opsets={"": opset}).run(None, feeds)[0]
    if not isinstance(result, np.ndarray | np.generic):
        return None
    array = np.asarray(result)
    dtype_of(onnx.helper.np_dtype_to_tensor_dtype(array.dtype), _name(node))
    return array


def _integer(node: onnx.NodeProto, name: str) -> int | None:
    found = [attribute.i for attribute in node.attribute if attribute.name == name]
    return found[0] if found else None


def _name(node: onnx.NodeProto) -> str:
    return f"node {node.name or node.output[0]!r} ({node.op_type})"
