"""``tvm.sparsewino::WinogradConv2d``, the one ONNX operator that is ours.

Inputs: data [N, C, H, W], coefficients [alpha^2, K, C/groups], perhaps bias [K]; all float32.
Output: [N, K, OH, OW]. Stride and dilation are 1. The attributes say all that a reader needs to
know about the algorithm; :mod:`.body` says the same in standard operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx.defs import OpSchema

from ..cook_toom import CookToom, canonical_points, cook_toom, points_from_text, points_to_text
from ..errors import ConfigError, ImportFailed
from ..weights import MAX_ALPHA

DOMAIN = "tvm.sparsewino"
OP_TYPE = "WinogradConv2d"
VERSION = 1

# Every attribute of the operator with its type.
_ATTRIBUTES = {
    "m": onnx.AttributeProto.INT,
    "r": onnx.AttributeProto.INT,
    "points": onnx.AttributeProto.STRINGS,
    "padding": onnx.AttributeProto.INTS,
    "groups": onnx.AttributeProto.INT,
    "version": onnx.AttributeProto.INT,
}
# Left out where it is 0, so that readers that do not know it refuse only what they cannot run.
_RELU = "winograd_relu"


@dataclass(frozen=True)
class WinogradSpec:
    """What the attributes of one node say.

    Attributes:
        m, r: outputs per tile and filter taps per dimension.
        padding: zeros at (top, left, bottom, right).
        groups: channel groups.
        bias: whether there is a bias among the inputs.
        points: of the algorithm as exact text, "inf" last.
        relu: whether negative transformed inputs count as zero.
    """

    m: int
    r: int
    padding: tuple[int, int, int, int]
    groups: int
    bias: bool
    points: tuple[str, ...]
    relu: bool = False

    @property
    def algorithm(self) -> CookToom:
        """F(m, r) at the points."""
        return cook_toom(self.m, self.r, points_from_text(self.points))

    @property
    def overload(self) -> str:
        """Tells the function bodies of one model apart; a bias and other points need their own."""
        padding = "_".join(map(str, self.padding))
        parts = [f"m{self.m}_r{self.r}_p{padding}_g{self.groups}"]
        if self.bias:
            parts.append("bias")
        if self.relu:
            parts.append("relu")
        if self.points != points_to_text(canonical_points(self.m, self.r)):
            parts.append(
                "at_" + "_".join(p.replace("-", "n").replace("/", "d") for p in self.points)
            )
        return "_".join(parts)


def attributes(
    m: int,
    r: int,
    padding: Sequence[int],
    groups: int,
    relu: bool = False,
) -> dict[str, Any]:
    """The attributes of a node of our operator, at the canonical points of F(m, r)."""
    return {
        **({_RELU: 1} if relu else {}),
        "m": m,
        "r": r,
        "points": list(points_to_text(canonical_points(m, r))),
        "padding": [int(p) for p in padding],
        "groups": groups,
        "version": VERSION,
    }


def is_winograd(node: onnx.NodeProto) -> bool:
    """Whether ``node`` is of our operator."""
    return node.domain == DOMAIN and node.op_type == OP_TYPE


def read_spec(node: onnx.NodeProto) -> WinogradSpec:
    """The attributes of a node of our operator, checked.

    Raises:
        ImportFailed: missing, unknown or impossible attributes; says which.
    """
    found = {a.name: a for a in node.attribute}
    kinds = {**_ATTRIBUTES, **({_RELU: onnx.AttributeProto.INT} if _RELU in found else {})}
    wrong = sorted(set(found) ^ set(kinds))
    wrong += sorted(n for n, kind in kinds.items() if n in found and found[n].type != kind)
    if wrong:
        raise ImportFailed(f"attributes {wrong} are missing, unknown or of another type")
    values = {name: onnx.helper.get_attribute_value(a) for name, a in found.items()}
    if values["version"] != VERSION:
        raise ImportFailed(f"version {values['version']} cannot be read, only {VERSION}")
    m, r, groups = values["m"], values["r"], values["groups"]
    if min(m, r) < 1 or m + r - 1 > MAX_ALPHA:
        raise ImportFailed(f"F({m},{r}) must have m and r of at least 1, m + r - 1 <= {MAX_ALPHA}")
    padding = tuple(values["padding"])
    if len(padding) != 4 or not all(0 <= p < r for p in padding):
        raise ImportFailed(f"padding must be 4 numbers in 0..{r - 1}, got {padding}")
    inputs = [name for name in node.input if name]
    if groups < 1 or len(inputs) not in (2, 3) or len(inputs) != len(node.input):
        raise ImportFailed(f"{len(inputs)} inputs and {groups} groups make no convolution")
    points = tuple(p.decode("utf-8", "replace") for p in values["points"])
    relu = values.get(_RELU, 0)
    if relu not in (0, 1):
        raise ImportFailed(f"{_RELU} must be 0 or 1, got {relu}")
    spec = WinogradSpec(m, r, padding, groups, len(inputs) == 3, points, bool(relu))
    try:
        _ = spec.algorithm
    except ConfigError as error:
        raise ImportFailed(str(error)) from error
    return spec


def schema() -> OpSchema:
    """The operator as ONNX's tools describe operators; it is not registered anywhere."""
    parameter, kinds = OpSchema.FormalParameter, OpSchema.AttrType
    types = {
        onnx.AttributeProto.INT: kinds.INT,
        onnx.AttributeProto.INTS: kinds.INTS,
        onnx.AttributeProto.STRINGS: kinds.STRINGS,
    }
    return OpSchema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        inputs=[
            parameter("data", "T"),
            parameter("weight", "T"),
            parameter("bias", "T", param_option=OpSchema.FormalParameterOption.Optional),
        ],
        outputs=[parameter("output", "T")],
        type_constraints=[("T", ["tensor(float)"], "float32")],
        attributes=[
            OpSchema.Attribute(name, types[kind], required=True)
            for name, kind in _ATTRIBUTES.items()
        ]
        + [OpSchema.Attribute(_RELU, kinds.INT, required=False)],
    )
