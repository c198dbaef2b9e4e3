"""PyTorch's sums with a factor and its scaled ELU as Relax's, for the importer of networks.

TVM's importer leaves out the factors: ``alpha`` of ``torch.add`` and its like, and the two scales
of ``elu``, which is what PyTorch makes of SELU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tvm import relax

# Node -> whether the second operand is subtracted; whether the operands change places first.
_SUMS = {
    "add.Tensor": (False, False),
    "add.Scalar": (False, False),
    "sub.Tensor": (True, False),
    "sub.Scalar": (True, False),
    "rsub.Tensor": (True, True),
    "rsub.Scalar": (True, True),
}


def arithmetic_converters() -> dict[str, Callable[[Any, Any], Any]]:
    """Name of a node -> what the importer makes of it: ``convert(node, importer)``."""
    sums = {name: partial(_sum, name, *options) for name, options in _SUMS.items()}
    return sums | {"elu.default": _elu}


def _sum(name: str, subtracted: bool, swapped: bool, node: Any, importer: Any) -> Any:
    """``x + alpha y``, in the type that PyTorch noted."""
    x, y, *rest = importer.retrieve_args(node)
    alpha = rest[0] if rest else node.kwargs.get("alpha", 1)
    if alpha == 1 and not rest:
        return importer.create_convert_map()[name](node)
    dtype = _dtype(node)
    x, y = (_typed(operand, dtype) for operand in ((y, x) if swapped else (x, y)))
    product = relax.op.multiply(y, relax.const(alpha, dtype))
    combine = relax.op.subtract if subtracted else relax.op.add
    return importer.block_builder.emit(combine(x, product))


def _elu(node: Any, importer: Any) -> relax.Var:
    """``scale x`` above 0, ``scale alpha (exp(input_scale x) - 1)`` below."""
    x, *rest = importer.retrieve_args(node)
    given = dict(zip(("alpha", "scale", "input_scale"), rest, strict=False)) | node.kwargs
    alpha, scale, inner = (given.get(n, 1.0) for n in ("alpha", "scale", "input_scale"))
    dtype = _dtype(node)
    zero, one = relax.const(0, dtype), relax.const(1, dtype)
    # exp is taken of what is below 0 only: above, it may be infinite.
    below = relax.op.minimum(x, zero)
    if inner != 1:
        below = relax.op.multiply(below, relax.const(inner, dtype))
    curve = relax.op.subtract(relax.op.exp(below), one)
    curve = relax.op.multiply(curve, relax.const(alpha * scale, dtype))
    line = relax.op.nn.relu(x)
    if scale != 1:
        line = relax.op.multiply(line, relax.const(scale, dtype))
    return importer.block_builder.emit(relax.op.add(line, curve))


def _dtype(node: Any) -> str:
    return str(node.meta["val"].dtype).removeprefix("torch.")


def _typed(operand: Any, dtype: str) -> relax.Expr:
    if not isinstance(operand, relax.Expr):
        return relax.const(operand, dtype)
    return operand if str(operand.ty.dtype) == dtype else relax.op.astype(operand, dtype)
