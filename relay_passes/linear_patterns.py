"""Find the linear layers of a function: products with constant weights, and what follows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from ..config import Epilogue
from ..config_linear import LinearShape
from ..errors import ShapeError
from ..geometry import INDEX_LIMIT
from .bindings import Bindings
from .ops import MATMUL, is_call_to, static_shape
from .patterns import LAYER_NAMES, activation
from .sites import unique_name


@dataclass(frozen=True, eq=False)
class LinearSite:
    """One linear layer in a function.

    Attributes:
        name: the layer's name, unique among the module's linear layers.
        var: the variable that holds its result.
        call: the call of ``relax.matmul``.
        leading: leading dimensions of the data.
        shape: its shape; None when no kernel can take it.
        weight: float32 [K, C].
        reason: why no kernel can take it; "" when one can.
    """

    name: str
    var: relax.Var
    call: relax.Call
    leading: tuple[int, ...] = ()
    shape: LinearShape | None = None
    weight: np.ndarray | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class LinearMatch:
    """What follows a linear layer and can run inside its kernel; see ``EpilogueMatch``."""

    tail: relax.Var
    inner: tuple[relax.Var, ...]
    epilogue: Epilogue
    bias: np.ndarray | None = None


def find_linears(bindings: Bindings) -> list[LinearSite]:
    """Every product with constant weights [C, K] among the bindings, in program order.

    Products of two computed tensors are no layers and are not listed.
    """
    names = dict(bindings.func.attrs.get(LAYER_NAMES, {})) if bindings.func.attrs else {}
    sites: list[LinearSite] = []
    taken: set[str] = set()
    for binding in bindings.order:
        if not is_call_to(binding.value, MATMUL):
            continue
        weight = _weight(bindings, binding.value.args[1])
        if weight is None:
            continue
        name = unique_name(str(names.get(binding.var.name, binding.var.name)), taken)
        sites.append(_site(name + bindings.scope, binding.var, binding.value, weight))
    return sites


def _weight(bindings: Bindings, expr: relax.Expr) -> np.ndarray | None:
    """Constant weights [C, K], read through transposes; None for anything else."""
    value = bindings.value(expr)
    if is_call_to(value, "relax.permute_dims"):
        inner = _weight(bindings, value.args[0])
        axes = value.attrs.axes
        order = None if axes is None else [int(axis) for axis in axes]
        return None if inner is None else inner.transpose(order)
    weight = bindings.constant(expr)
    return weight if weight is not None and weight.ndim == 2 else None


def _site(name: str, var: relax.Var, call: relax.Call, weight: np.ndarray) -> LinearSite:
    if weight.dtype != np.float32:
        return LinearSite(name, var, call, reason=f"its weights are {weight.dtype}, not float32")
    try:
        data = static_shape(call.args[0], "its data")
    except ShapeError as error:
        return LinearSite(name, var, call, reason=str(error))
    if min(*data, *weight.shape) < 1:
        return LinearSite(name, var, call, reason="it has no elements")
    leading = data[:-1]
    shape = LinearShape(int(np.prod(leading, dtype=int)), *weight.shape)
    if 2 * shape.n * max(weight.shape) >= INDEX_LIMIT:  # kernels round rows up to whole vectors
        return LinearSite(name, var, call, reason="its tensors are too large for 32-bit indices")
    return LinearSite(name, var, call, leading, shape, np.ascontiguousarray(weight.T))


def match_linear(site: LinearSite, bindings: Bindings) -> LinearMatch:
    """The longest chain of bias and activation that only this layer feeds."""
    tail, inner, bias = site.var, [], None
    user = bindings.only_user(tail)
    call = bindings.value(user) if user is not None else None
    if is_call_to(call, "relax.add"):
        other = call.args[1] if call.args[0].same_as(tail) else call.args[0]
        bias = _bias(bindings.constant(other), site)
        if bias is not None:
            inner.append(tail)
            tail = user
    kind, slope = "none", 0.0
    user = bindings.only_user(tail)
    taken = activation(bindings.value(user)) if user is not None else None
    if taken is not None:
        (kind, slope), inner = taken, [*inner, tail]
        tail = user
    epilogue = Epilogue(bias is not None, False, kind, slope)
    return LinearMatch(tail, tuple(inner), epilogue, bias)


def _bias(value: np.ndarray | None, site: LinearSite) -> np.ndarray | None:
    """A constant that adds one float32 per output feature (or one for all), as [K]."""
    k = site.shape.k
    if value is None or value.dtype != np.float32 or value.ndim > len(site.leading) + 1:
        return None
    if value.size not in (1, k) or (value.size > 1 and value.shape[-1] != k):
        return None
    return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), (k,)))
