"""A network between ONNX and Relax: nodes and arrays as plain data, without either library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class GraphInput:
    """An input of the network.

    Attributes:
        name: as the file has it.
        shape: known numbers.
        dtype: NumPy's name of the element type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class GraphNode:
    """One operator.

    Attributes:
        op_type, domain: which one; ONNX's own have the domain "".
        name: what messages and plans call it.
        inputs: names of values, "" where an optional one is left out.
        outputs: names of values.
        attributes: numbers, bytes, tuples of them, and ONNX's tensors.
    """

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """A network.

    Attributes:
        inputs: in order, constants not among them.
        outputs: names of values.
        nodes: in an order of execution.
        constants: value name -> array.
        opset: version of ONNX's own operators.
        batch: what the model calls a first dimension of inputs that is open, for which their shapes
            have a number here; "" when all are known.
        batched: names of those inputs.
    """

    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    nodes: tuple[GraphNode, ...]
    constants: dict[str, np.ndarray]
    opset: int
    batch: str = ""
    batched: tuple[str, ...] = ()
