"""Shape and plan of a linear layer: what :mod:`.config` holds for convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .config import VERSION, LayerPlan, _check, _Checked, _json_object

LINEAR_ALGORITHMS = ("sparse_linear", "dense_linear", "left")


@dataclass(frozen=True)
class LinearShape(_Checked):
    """The static shape of one linear layer.

    Attributes:
        n: rows of the data, all leading dimensions multiplied.
        c: input features.
        k: output features.
    """

    n: int
    c: int
    k: int

    def __post_init__(self) -> None:
        _check(min(self.n, self.c, self.k) >= 1, f"sizes must be >= 1, got {self}")

    @property
    def direct_flops(self) -> int:
        """FLOPs of the dense product."""
        return 2 * self.n * self.c * self.k


@dataclass(frozen=True)
class LinearPlan(_Checked):
    """What the planner decided for one linear layer, and why.

    Attributes:
        name: the layer's name in the model.
        linear: the layer's shape; None if no kernel can take it.
        density: share of nonzero weights, 0 to 1.
        algorithm: one of ``LINEAR_ALGORITHMS``; "left" leaves the layer to TVM.
        reason: why this plan, in one sentence.
        flops_direct: FLOPs of the dense product.
        flops_done: FLOPs of the kernel's products.
        cost_cycles: predicted cycles of the core that has most to do.

    Raises:
        ConfigError: a value out of range.
    """

    name: str
    linear: LinearShape | None
    density: float
    algorithm: str
    reason: str = ""
    flops_direct: int = 0
    flops_done: int = 0
    cost_cycles: float = 0.0

    def __post_init__(self) -> None:
        known = self.algorithm in LINEAR_ALGORITHMS
        _check(known, f"unknown algorithm of a linear layer {self.algorithm!r}")
        _check(0 <= self.density <= 1, f"density must be in [0, 1], got {self.density!r}")
        needs_shape = self.algorithm != "left" and self.linear is None
        _check(not needs_shape, f"{self.algorithm} needs the layer's shape")

    @classmethod
    def from_json(cls, data: dict[str, Any] | str) -> LinearPlan:
        """As :meth:`_Checked.from_json`, the layer's shape included."""
        data = _json_object(cls.__name__, data)
        shape = data.get("linear")
        if shape is not None:
            shape = _json_object(LinearShape.__name__, shape)
            data["linear"] = LinearShape.from_json({"version": VERSION, **shape})
        return super().from_json(data)


AnyPlan = LayerPlan | LinearPlan


def plan_from_json(data: dict[str, Any] | str) -> AnyPlan:
    """The plan of a convolution or of a linear layer, whichever ``data`` holds.

    Raises:
        ConfigError: as :meth:`LayerPlan.from_json`.
    """
    data = _json_object("plan", data)
    return LinearPlan.from_json(data) if "linear" in data else LayerPlan.from_json(data)
