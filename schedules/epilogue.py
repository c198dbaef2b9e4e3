"""What follows the convolution inside the kernel: bias, residual add, activation, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import tir
from ..config import Epilogue


@dataclass(frozen=True)
class EpilogueOperands:
    """The epilogue together with its buffers; those it does not use are None.

    Attributes:
        epilogue: what to do.
        bias: buffer [K].
        slope: buffer [K], for "prelu".
        residual: buffer [N, K, OH, OW].
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
