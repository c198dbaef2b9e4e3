"""The epilogue of a convolution kernel: bias, residual, activation, pool, in this order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .. import _compat as tvm_ir
from .._compat import tir
from ..config import Epilogue

# What never falls may as well come after a maximum.
RISING = ("none", "relu", "relu6")


@dataclass(frozen=True)
class EpilogueOperands:
    """The epilogue together with its buffers; those it does not use are None.

    Attributes:
        epilogue: what to do.
        bias: buffer [K].
        slope: buffer [K], for "prelu".
        residual: buffer [N, K, OH, OW]; not together with a pool.
    """

    epilogue: Epilogue
    bias: Any = None
    slope: Any = None
    residual: Any = None

    def add_bias(self, value: Any, k: Any, lanes: int) -> Any:
        """``value`` of output channel ``k`` plus its bias."""
        if self.bias is None:
            return value
        return value + tvm_ir.broadcast(self.bias[k], lanes)

    def finish(self, value: Any, index: list[Any], k: Any, lanes: int) -> Any:
        """Residual add and activation of the outputs at ``index``."""
        if self.residual is not None:
            value = value + self.residual[tuple(index)]
        return self.activate(value, k, lanes)

    def activate(self, value: Any, k: Any, lanes: int) -> Any:
        """The activation of outputs of channel ``k``."""
        kind, zero = self.epilogue.activation, tvm_ir.broadcast(0.0, lanes)
        if kind == "none":
            return value
        if kind in ("relu", "relu6"):
            # The constant comes first: the comparison is then false for NaN, which passes through.
            value = tir.max(zero, value)
            return value if kind == "relu" else tir.min(tvm_ir.broadcast(6.0, lanes), value)
        slope = self.slope[k] if kind == "prelu" else float(self.epilogue.slope)
        value = tvm_ir.bind(value)
        negative = tir.min(zero, value) * tvm_ir.broadcast(slope, lanes)
        return tir.max(zero, value) + negative

    def pooled(self, windows: list[list[Any]], k: Any, lanes: int) -> list[Any]:
        """Activation and pool of outputs of channel ``k``.

        Args:
            windows: the numbers of each window, as vectors over windows.
            k: the output channel.
            lanes: lanes of the vectors.
        """
        if self.epilogue.pool == "average":
            share = tvm_ir.broadcast(1.0 / len(windows[0]), lanes)
            sums = [_fold(self._each(w, k, lanes), lambda a, b: a + b) for w in windows]
            return [tvm_ir.bind(total * share) for total in sums]
        if self.epilogue.activation in RISING:
            largest = [_fold(window, tir.max) for window in windows]
            return self._each(largest, k, lanes)
        return [_fold(self._each(window, k, lanes), tir.max) for window in windows]

    @property
    def around_maximum(self) -> tuple[EpilogueOperands, EpilogueOperands]:
        """What comes before and what after the maximum of outputs that are stored in between."""
        plain = replace(self, epilogue=replace(self.epilogue, activation="none"))
        return (plain, self) if self.epilogue.activation in RISING else (self, plain)

    def _each(self, values: list[Any], k: Any, lanes: int) -> list[Any]:
        return [tvm_ir.bind(self.activate(value, k, lanes)) for value in values]


def _fold(values: list[Any], pair: Callable[[Any, Any], Any]) -> Any:
    """All values as one, two neighbours at a time."""
    while len(values) > 1:
        values = [tvm_ir.bind(pair(*two)) for two in zip(values[::2], values[1::2], strict=True)]
    return values[0]
