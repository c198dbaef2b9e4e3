"""Find the convolutions of a Relay function and what follows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relay

from ...config import ACTIVATIONS, Epilogue
from ...errors import ShapeError, in_context
from ..operators import WINOGRAD, winograd_shape
from ..sites import (
    RISING,
    ConvSite,
    EpilogueMatch,
    is_pool,
    per_channel,
    spatial_site,
    unique_name,
    winograd_site,
)
from .graph import Graph, is_call_to, source_name
from .ops import static_shape

CONV2D = "nn.conv2d"
_SUFFIX = ".weight"


# ---- convolutions ------------------------------------------------------------------------------


def find_convs(graph: Graph) -> list[ConvSite]:
    """Every 2-D convolution of a function, in an order of execution.

    Raises:
        ShapeError: a convolution whose data has a symbolic shape; names the layer.
    """
    sites: list[ConvSite] = []
    taken: set[str] = set()
    for expr in graph.order:
        if is_call_to(expr, CONV2D) or is_call_to(expr, WINOGRAD):
            name = unique_name(layer_name(expr) or f"conv2d_{len(sites)}", taken)
            with in_context(f"layer {name!r}"):
                site = _site(ConvSite(name, expr), graph)
                sites.append(site if site.reason else _with_pool(site, graph))
    return sites


def layer_name(call: relay.Call) -> str:
    """The layer that a convolution belongs to, "" when nothing says it.

    A weight "body.0.weight" belongs to layer "body.0", as in PyTorch and in the files it exports;
    otherwise the layer is called as the frontend calls the operator.
    """
    own, weight = source_name(call), _weight_name(call.args[1])
    if weight.endswith(_SUFFIX):
        return weight.removeprefix(f"{own}.").removesuffix(_SUFFIX)
    return own or weight


def _weight_name(weight: relay.Expr) -> str:
    """Where a constant, or the constant below reshapes and changes of layout, comes from."""
    while isinstance(weight, relay.Call) and weight.args and not source_name(weight):
        weight = weight.args[0]
    if isinstance(weight, relay.Var):
        return source_name(weight) or str(weight.name_hint)
    return source_name(weight)


def _site(site: ConvSite, graph: Graph) -> ConvSite:
    """``site``, of which name and call are known, complete."""
    call = site.call
    weight = graph.constant(call.args[1])
    data = static_shape(call.args[0].checked_type, "data")
    if not is_call_to(call, WINOGRAD):
        return spatial_site(site, data, weight)
    given = static_shape(call.args[1].checked_type, "weight")
    return winograd_site(site, winograd_shape(call.attrs, data, given), weight)


def _with_pool(site: ConvSite, graph: Graph) -> ConvSite:
    match = match_epilogue(site, graph, set(), pool=True)
    return replace(site, pool=match.epilogue.pool)


# ---- what follows a convolution ----------------------------------------------------------------


def match_epilogue(
    site: ConvSite, graph: Graph, claimed: set[relay.Expr], pool: bool = False
) -> EpilogueMatch:
    """The longest chain of bias, residual add, activation and pool that only this one feeds.

    Args:
        site: a convolution that a kernel can take.
        graph: the function's graph.
        claimed: expressions that belong to the chains of other convolutions.
        pool: whether 2x2 pooling with stride 2 is part of it; not behind a residual.
    """
    return _Chain(site, graph, claimed).match(pool)


class _Chain:
    """One walk along the users of a convolution; ``tail`` is how far it came."""

    def __init__(self, site: ConvSite, graph: Graph, claimed: set[relay.Expr]) -> None:
        self.graph, self.claimed = graph, claimed
        self.tail: relay.Expr = site.call
        self.inner: list[relay.Expr] = []
        self.shape, self.channels = site.shape, site.shape.k
        self.bias: np.ndarray | None = None
        self.slope: np.ndarray | None = None
        self.residual: relay.Expr | None = None

    def match(self, with_pool: bool) -> EpilogueMatch:
        self._take_bias()
        self._take_residual()
        kind, leak = self._take_prelu() or self._take_activation()
        pool = self._take_pool() if with_pool and self.residual is None else "none"
        if pool == "max" and kind == "none":
            # The maximum of what never falls: the order makes no difference.
            kind, leak = self._take_activation(RISING)
        epilogue = Epilogue(self.bias is not None, self.residual is not None, kind, leak, pool)
        return EpilogueMatch(
            self.tail, tuple(self.inner), epilogue, self.bias, self.slope, self.residual
        )

    def _next(self, name: str) -> relay.Call | None:
        """The one use of the tail, when it is a call of the operator ``name``."""
        user = self.graph.only_user(self.tail)
        return user if is_call_to(user, name) and user not in self.claimed else None

    def _advance(self, call: relay.Call) -> None:
        self.inner.append(self.tail)
        self.tail = call

    def _take_bias(self) -> None:
        if (call := self._next("nn.bias_add")) and _axis(call) == 1:
            self.bias = per_channel(self.graph.constant(call.args[1]), self.channels, vector=True)
        elif call := self._next("add"):
            self.bias = per_channel(self.graph.constant(_other(call, self.tail)), self.channels)
        if self.bias is not None:
            self._advance(call)

    def _take_residual(self) -> None:
        call = self._next("add")
        if call is None:
            return
        other = _other(call, self.tail)
        if tvm_shape(other) == tvm_shape(self.tail) == tvm_shape(call):
            self.residual = other
            self._advance(call)

    def _take_prelu(self) -> tuple[str, float] | None:
        call = self._next("nn.prelu")
        if call is None or _axis(call) != 1:
            return None
        self.slope = per_channel(self.graph.constant(call.args[1]), self.channels, vector=True)
        if self.slope is None:
            return None
        self._advance(call)
        return "prelu", 0.0

    def _take_activation(self, kinds: tuple[str, ...] = ACTIVATIONS) -> tuple[str, float]:
        user = self.graph.only_user(self.tail)
        taken = None if user in self.claimed else activation(user)
        if taken is None or taken[0] not in kinds:
            return "none", 0.0
        self._advance(user)
        return taken

    def _take_pool(self) -> str:
        for name, pool in (("nn.max_pool2d", "max"), ("nn.avg_pool2d", "average")):
            call = self._next(name)
            if call is not None and is_pool(call.attrs, self.shape, tvm_shape(call)):
                self._advance(call)
                return pool
        return "none"


def activation(expr: relay.Expr | None) -> tuple[str, float] | None:
    """Name and slope of the activation that ``expr`` computes; None for anything else."""
    if is_call_to(expr, "nn.relu"):
        return "relu", 0.0
    if is_call_to(expr, "clip"):
        return ("relu6", 0.0) if (expr.attrs.a_min, expr.attrs.a_max) == (0.0, 6.0) else None
    if is_call_to(expr, "nn.leaky_relu"):
        return "leaky_relu", float(expr.attrs.alpha)
    return None


def _other(call: relay.Call, operand: relay.Expr) -> relay.Expr:
    return call.args[1] if call.args[0].same_as(operand) else call.args[0]


def _axis(call: relay.Call) -> int:
    """The axis of an operator on data of 4 dimensions."""
    return int(call.attrs.axis) % 4


def tvm_shape(expr: relay.Expr) -> tuple[int, ...] | None:
    """The shape of a float32 tensor that is known, None of anything else."""
    try:
        return static_shape(expr.checked_type, "operand")
    except ShapeError:
        return None
