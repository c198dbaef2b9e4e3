"""Find the convolutions of a function and what surrounds them.

Graph shape is matched here; whether a kernel can take what was found is a named check beside it,
so that every convolution that is left alone has a reason.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from ..config import ACTIVATIONS, Epilogue
from ..errors import ShapeError, in_context
from .bindings import Bindings
from .operators import WINOGRAD
from .ops import CONV2D, is_call_to, static_shape, winograd_shape
from .sites import (
    RISING,
    ConvSite,
    EpilogueMatch,
    is_pool,
    per_channel,
    spatial_site,
    unique_name,
    winograd_site,
)

# Function attribute: name of the variable that holds a convolution -> the layer's name.
LAYER_NAMES = "sparsewino.layer_names"


# ---- convolutions ------------------------------------------------------------------------------


def find_convs(bindings: Bindings) -> list[ConvSite]:
    """Every 2-D convolution among the bindings, in program order.

    Raises:
        ShapeError: a convolution whose data has a symbolic or unknown shape; names the layer.
    """
    names = dict(bindings.func.attrs.get(LAYER_NAMES, {})) if bindings.func.attrs else {}
    sites: list[ConvSite] = []
    taken: set[str] = set()
    for binding in bindings.order:
        if is_call_to(binding.value, CONV2D) or is_call_to(binding.value, WINOGRAD):
            name = unique_name(str(names.get(binding.var.name, binding.var.name)), taken)
            name += bindings.scope
            with in_context(f"layer {name!r}"):
                site = _site(ConvSite(name, binding.value, binding.var), bindings)
                sites.append(site if site.reason else _with_pool(site, bindings))
    return sites


def _site(site: ConvSite, bindings: Bindings) -> ConvSite:
    """``site``, of which name, call and variable are known, complete."""
    call = site.call
    weight = bindings.constant(call.args[1])
    if not is_call_to(call, WINOGRAD):
        return spatial_site(site, static_shape(call.args[0], "data"), weight)
    shape = winograd_shape(call)
    if weight is not None and len(call.args) == 3 and bindings.constant(call.args[2]) is None:
        return replace(site, reason="its bias is not constant")
    return winograd_site(site, shape, weight)


def _with_pool(site: ConvSite, bindings: Bindings) -> ConvSite:
    match = match_epilogue(site, bindings, set(), pool=True)
    return replace(site, pool=match.epilogue.pool)


# ---- what follows a convolution ----------------------------------------------------------------


def match_epilogue(
    site: ConvSite, bindings: Bindings, claimed: set[relax.Var], pool: bool = False
) -> EpilogueMatch:
    """The longest chain of bias, residual add, activation and pool that only this one feeds.

    Args:
        site: a convolution that a kernel can take.
        bindings: the function's bindings.
        claimed: variables that belong to the chains of other convolutions.
        pool: whether 2x2 pooling with stride 2 is part of it; not behind a residual.
    """
    return _Chain(site, bindings, claimed).match(pool)


class _Chain:
    """One walk along the users of a convolution; ``tail`` is how far it came."""

    def __init__(self, site: ConvSite, bindings: Bindings, claimed: set[relax.Var]) -> None:
        self.bindings, self.claimed = bindings, claimed
        self.tail = site.var
        self.inner: list[relax.Var] = []
        self.shape, self.channels = site.shape, site.shape.k
        self.bias = bindings.constant(site.call.args[2]) if len(site.call.args) == 3 else None
        self.slope: np.ndarray | None = None
        self.residual: relax.Expr | None = None

    def match(self, with_pool: bool) -> EpilogueMatch:
        if self.bias is None:
            self._take_bias()
        self._take_residual()
        kind, leak = self._take_prelu() or self._take_activation()
        pool = self._take_pool() if with_pool and self.residual is None else "none"
        if pool == "max" and kind == "none":
            # The maximum of what never falls: the order makes no difference.
            kind, leak = self._take_activation(RISING)
        epilogue = Epilogue(
            self.bias is not None, self.residual is not None, kind, float(leak), pool
        )
        return EpilogueMatch(
            self.tail, tuple(self.inner), epilogue, self.bias, self.slope, self.residual
        )

    def _next(self, name: str) -> tuple[relax.Var, relax.Call] | None:
        """The one use of the tail, when it is a call of the operator ``name``."""
        user = self.bindings.only_user(self.tail)
        call = self.bindings.value(user) if user is not None and user not in self.claimed else None
        return (user, call) if is_call_to(call, name) else None

    def _advance(self, *variables: relax.Var) -> None:
        """Make the last of ``variables`` the tail; the tail so far and the others are inner."""
        self.inner += [self.tail, *variables[:-1]]
        self.tail = variables[-1]

    def _take_bias(self) -> None:
        found = self._next("relax.add")
        if found is None:
            return
        user, call = found
        other = call.args[1] if call.args[0].same_as(self.tail) else call.args[0]
        self.bias = self._per_channel(other)
        if self.bias is not None:
            self._advance(user)

    def _take_residual(self) -> None:
        found = self._next("relax.add")
        if found is None:
            return
        user, call = found
        first, second = call.args
        if first.same_as(second):
            return
        other = second if first.same_as(self.tail) else first
        if self._shape(other) == self._shape(self.tail):
            self.residual = other
            self._advance(user)

    def _take_activation(self, kinds: tuple[str, ...] = ACTIVATIONS) -> tuple[str, float]:
        user = self.bindings.only_user(self.tail)
        if user is None or user in self.claimed:
            return "none", 0.0
        taken = activation(self.bindings.value(user))
        if taken is None or taken[0] not in kinds:
            return "none", 0.0
        self._advance(user)
        return taken

    def _take_pool(self) -> str:
        for name, pool in (("relax.nn.max_pool2d", "max"), ("relax.nn.avg_pool2d", "average")):
            found = self._next(name)
            if found is None:
                continue
            if is_pool(found[1].attrs, self.shape, static_shape(found[1], "pooled map")):
                self._advance(found[0])
                return pool
        return "none"

    def _take_prelu(self) -> tuple[str, float] | None:
        """``relax.nn.prelu(x, slope)`` or PyTorch's ``where(x > 0, x, slope * x)``."""
        found = self._next("relax.nn.prelu")
        if found is not None and int(found[1].attrs.axis) == 1:
            self.slope = self._per_channel(found[1].args[1], vector=True)
            variables = [found[0]]
        else:
            variables = self._torch_prelu()
        if not variables or self.slope is None:
            return None
        self._advance(*variables)
        return "prelu", 0.0

    def _torch_prelu(self) -> list[relax.Var]:
        users = self.bindings.users(self.tail)
        if len(users) != 3 or self.bindings.use_count(self.tail) != 3:
            return []
        compare, product, _ = users
        values = [self.bindings.value(user) for user in users]
        names = ("relax.greater", "relax.multiply", "relax.where")
        if not all(is_call_to(value, name) for value, name in zip(values, names, strict=True)):
            return []
        zero = self.bindings.constant(values[0].args[1])
        wired = values[2].args[0].same_as(compare) and values[2].args[2].same_as(product)
        ours = values[0].args[0].same_as(self.tail) and values[2].args[1].same_as(self.tail)
        alone = all(self.bindings.only_user(var) is not None for var in (compare, product))
        if not (wired and ours and alone) or zero is None or zero.ndim or zero != 0:
            return []
        scale = values[1].args[1] if values[1].args[0].same_as(self.tail) else values[1].args[0]
        self.slope = self._per_channel(scale)
        return users

    def _per_channel(self, expr: relax.Expr, vector: bool = False) -> np.ndarray | None:
        return per_channel(self.bindings.constant(expr), self.channels, vector)

    def _shape(self, expr: relax.Expr) -> tuple[int, ...] | None:
        try:
            return static_shape(expr, "residual")
        except ShapeError:
            return None


def activation(expr: relax.Expr) -> tuple[str, float] | None:
    """Name and slope of the activation that ``expr`` computes; None for anything else."""
    if is_call_to(expr, "relax.clip"):
        low, high = (float(getattr(arg, "value", arg)) for arg in expr.args[1:])
        return ("relu6", 0.0) if (low, high) == (0.0, 6.0) else None
    if is_call_to(expr, "relax.nn.leakyrelu"):
        return "leaky_relu", float(expr.attrs.alpha)
    for name in ("relu", "relu6"):
        if is_call_to(expr, f"relax.nn.{name}"):
            return name, 0.0
    return None
