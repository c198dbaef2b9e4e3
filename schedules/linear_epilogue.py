"""The epilogue of a linear layer's kernel: bias, then activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..config import Epilogue
from .epilogue import EpilogueOperands


@dataclass(frozen=True)
class LinearEpilogue:
    """Bias and activation of a linear layer.

    Attributes:
        epilogue: what to do; no residual and no PReLU.
        bias: buffer of the bias, as long as the layout's ``padded_k``; None without one.
    """

    epilogue: Epilogue
    bias: Any = None

    def apply(self, value: Any, k: Any, lanes: int) -> Any:
        """Sums of output features ``k`` and on, with bias and activation."""
        if self.bias is not None:
            value = value + self.bias[tvm_ir.ramp(k, 1, lanes)]
        return EpilogueOperands(self.epilogue).finish(value, [], k, lanes)

    def store(self, output: Any, sums: Any, base: Any, k: Any, lanes: int, features: int) -> None:
        """Store a vector of sums at ``output[base + k]`` as far as there are ``features``."""
        value = tvm_ir.bind(self.apply(sums, k, lanes))

        def whole() -> None:
            T.buffer_store(output, value, [tvm_ir.ramp(base + k, 1, lanes)])

        with T.If(k + lanes <= features):
            with T.Then():
                whole()
            if features % lanes:
                with T.Else(), tvm_ir.scratch((lanes,)) as tail:
                    T.buffer_store(tail, value, [tvm_ir.ramp(0, 1, lanes)])
                    with T.serial(0, features - k) as t:
                        T.buffer_store(output, tail[t], [base + k + t])
