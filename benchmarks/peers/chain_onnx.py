"""The chain of convolutions as an ONNX model, for the peers that read one."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
IR_VERSION = 8  # what the oldest of the peers reads

Layers = list[tuple[np.ndarray, np.ndarray]]


def onnx_model(x: np.ndarray, layers: Layers) -> bytes:
    """Serialised model with input "x" and output "y"."""
    nodes, constants, value = [], [], "x"
    for i, (weight, bias) in enumerate(layers):
        constants += [
            numpy_helper.from_array(weight, f"w{i}"),
            numpy_helper.from_array(bias, f"b{i}"),
        ]
        inputs, made = [value, f"w{i}", f"b{i}"], f"conv{i}"
        nodes.append(
            helper.make_node("Conv", inputs, [made], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        )
        value = "y" if i == len(layers) - 1 else f"relu{i}"
        nodes.append(helper.make_node("Relu", [made], [value]))
    n, _, h, w = x.shape
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", x.shape), ("y", (n, len(layers[-1][1]), h, w)))
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION).SerializeToString()
