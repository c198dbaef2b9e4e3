"""Find the linear layers of a function: products with constant weights, and what follows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from ..config import Epilogue
from ..errors import ShapeError
from .bindings import Bindings
from .linear_sites import LinearMatch, LinearSite, linear_bias, linear_site
from .ops import MATMUL, is_call_to, static_shape
from .patterns import LAYER_NAMES, activation
from .sites import unique_name


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
        site = LinearSite(name + bindings.scope, binding.value, binding.var)
        sites.append(_site(site, weight))
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


def _site(site: LinearSite, weight: np.ndarray) -> LinearSite:
    """``site``, of which name, call and variable are known, complete."""
    if weight.dtype != np.float32:
        return replace(site, reason=f"its weights are {weight.dtype}, not float32")
    try:
        data = static_shape(site.call.args[0], "its data")
    except ShapeError as error:
        return replace(site, reason=str(error))
    return linear_site(site, data, weight)


def match_linear(site: LinearSite, bindings: Bindings) -> LinearMatch:
    """The longest chain of bias and activation that only this layer feeds."""
    tail, inner, bias = site.var, [], None
    user = bindings.only_user(tail)
    call = bindings.value(user) if user is not None else None
    if is_call_to(call, "relax.add"):
        other = call.args[1] if call.args[0].same_as(tail) else call.args[0]
        bias = linear_bias(bindings.constant(other), site)
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
