"""Chains of operators that scale and shift every channel: BatchNorm, and products and sums with
constants. A chain is ``x * scale + shift`` with one number per channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from .bindings import Bindings
from .ops import BATCH_NORM, is_call_to
from .scaling import norm_scale_and_shift

ARITHMETIC = ("relax.add", "relax.subtract", "relax.multiply", "relax.divide")


@dataclass(frozen=True, eq=False)
class Affine:
    """A chain of at least one operator.

    Attributes:
        result: the variable that holds its result.
        inner: variables of the chain before ``result``, which nothing else uses.
        scale, shift: float64 [channels].
        scales: whether anything but sums is in it.
    """

    result: relax.Var
    inner: tuple[relax.Var, ...]
    scale: np.ndarray
    shift: np.ndarray
    scales: bool

    def then(self, after: Affine) -> Affine:
        """This chain and one that begins with its result."""
        return Affine(
            after.result,
            (*self.inner, self.result, *after.inner),
            self.scale * after.scale,
            self.shift * after.scale + after.shift,
            self.scales or after.scales,
        )


def chain_after(var: relax.Var, bindings: Bindings) -> Affine | None:
    """The longest chain that alone uses ``var``, None without one.

    A chain ends before what would make a number that is not finite.
    """
    user = bindings.only_user(var)
    return None if user is None else chain_at(var, user, bindings)


def chain_at(var: relax.Var, user: relax.Var, bindings: Bindings) -> Affine | None:
    """The longest chain from ``var`` on that begins with its use by ``user``, None without one."""
    chain = _step(var, user, bindings)
    while chain is not None:
        after = bindings.only_user(chain.result)
        step = None if after is None else _step(chain.result, after, bindings)
        longer = None if step is None else chain.then(step)
        if longer is None or not _finite(longer):
            break
        chain = longer
    return chain if chain is not None and _finite(chain) else None


def _finite(chain: Affine) -> bool:
    with np.errstate(over="ignore"):
        values = (chain.scale.astype(np.float32), chain.shift.astype(np.float32))
    return all(bool(np.isfinite(value).all()) for value in values)


def _step(var: relax.Var, user: relax.Var, bindings: Bindings) -> Affine | None:
    """What ``user`` makes of ``var`` if that scales and shifts channels."""
    call, shape = bindings.value(user), _shape(var)
    if shape is None or len(shape) < 2:
        return None
    if is_call_to(call, BATCH_NORM):
        return _batch_norm(user, call, shape[1], bindings)
    if not any(is_call_to(call, name) for name in ARITHMETIC):
        return None
    first = call.args[0].same_as(var)
    constant = _per_channel(call.args[1 if first else 0], shape, bindings)
    return None if constant is None else _arithmetic(user, call.op.name, constant, first)


def _arithmetic(user: relax.Var, name: str, constant: np.ndarray, first: bool) -> Affine | None:
    """``x`` with a constant; ``first``: x is the first operand."""
    one, zero = np.ones(len(constant)), np.zeros(len(constant))
    if name == "relax.divide":
        return Affine(user, (), 1 / constant, zero, True) if first and constant.all() else None
    if name == "relax.multiply":
        return Affine(user, (), constant, zero, True)
    if name == "relax.subtract":
        return Affine(user, (), one if first else -one, -constant if first else constant, not first)
    return Affine(user, (), one, constant, False)


def _batch_norm(
    norm: relax.Var, call: relax.Call, channels: int, bindings: Bindings
) -> Affine | None:
    """Inference BatchNorm of channels with constants, of which only the result is used."""
    if bool(call.attrs.training) or int(call.attrs.axis) != 1:
        return None
    item = bindings.only_user(norm)
    value = bindings.value(item) if item is not None else None
    if not (isinstance(value, relax.TupleGetItem) and value.index == 0):
        return None
    constants = [bindings.constant(arg) for arg in call.args[1:]]
    found = norm_scale_and_shift(call.attrs, constants, channels)
    return None if found is None else Affine(item, (norm,), *found, True)


def _per_channel(expr: relax.Expr, shape: tuple[int, ...], bindings: Bindings) -> np.ndarray | None:
    """A float32 constant with one number per channel, or one for all, as float64 [channels]."""
    value = bindings.constant(expr)
    if value is None or value.dtype != np.float32 or value.ndim > len(shape):
        return None
    wide = (1,) * (len(shape) - value.ndim) + value.shape
    if any(extent != 1 for axis, extent in enumerate(wide) if axis != 1):
        return None
    if wide[1] not in (1, shape[1]):
        return None
    return np.broadcast_to(value.reshape(-1), (shape[1],)).astype(np.float64)


def _shape(var: relax.Var) -> tuple[int, ...] | None:
    """A tensor's shape, unknown extents 0; None when there is none."""
    ty = var.ty
    if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
        return None
    return tuple(
        int(d) if isinstance(d, int) or hasattr(d, "value") else 0 for d in ty.shape.values
    )
