"""Our operator for PyTorch's ONNX exporter, which writes nodes through onnxscript."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxscript import values

from .operator import DOMAIN, OP_TYPE, VERSION, attributes, schema


def winograd_emitter() -> Callable[..., Any]:
    """A function that adds a node of our operator to the model that is being exported."""
    operator = values.Op(values.Opset(DOMAIN, VERSION), OP_TYPE, schema())

    def emit(*operands: Any, m: int, r: int, padding: Any, groups: int, relu: bool) -> Any:
        return operator(*operands, **attributes(m, r, padding, groups, relu=relu))

    return emit
