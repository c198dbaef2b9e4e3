"""Arguments of ONNX nodes that TVM's converters take otherwise than ONNX means them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from .._compat import constant_array
from ..errors import ImportFailed
from ..onnx_graph import GraphNode
from .ops import static_shape

_POOLS = ("MaxPool", "AveragePool", "LpPool")


def checked_attributes(node: GraphNode, operands: Sequence[Any]) -> dict[str, Any]:
    """The attributes of ``node`` for TVM's converter.

    The padding of pools that ``auto_pad`` asks for becomes numbers.

    Raises:
        ImportFailed: a Resize by factors that make no whole sizes, which TVM rounds.
    """
    if node.op_type == "Resize":
        _check_factors(node, operands)
    if node.op_type in _POOLS and node.attributes.get("auto_pad", b"") in _SAME:
        return _with_pads(node.attributes, static_shape(operands[0], "data")[2:])
    return dict(node.attributes)


_SAME = (b"SAME_UPPER", b"SAME_LOWER")


def _with_pads(given: dict[str, Any], size: tuple[int, ...]) -> dict[str, Any]:
    ones = (1,) * len(size)
    windows = zip(
        *(size, given["kernel_shape"], given.get("strides", ones), given.get("dilations", ones)),
        strict=True,
    )
    totals = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in windows]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    pads = (*less, *more) if given["auto_pad"] == b"SAME_UPPER" else (*more, *less)
    return {**given, "auto_pad": b"NOTSET", "pads": pads}


def _check_factors(node: GraphNode, operands: Sequence[Any]) -> None:
    """What aligns corners, or names its sizes, makes no use of factors."""
    scales = operands[2] if len(operands) > 2 else operands[-1]
    named = len(operands) > 3 and operands[3] is not None
    aligned = node.attributes.get("coordinate_transformation_mode") == b"align_corners"
    if named or aligned or not isinstance(scales, relax.Expr):
        return
    factors, size = constant_array(scales), static_shape(operands[0], "data")
    if factors is None or factors.size != len(size):
        return
    for old, factor in zip(size, factors.ravel(), strict=True):
        new = old * float(factor)
        if abs(new - np.round(new)) > 1e-4:
            raise ImportFailed(
                f"resizes {old} numbers by {factor:g}, which makes no whole number; give sizes"
            )
