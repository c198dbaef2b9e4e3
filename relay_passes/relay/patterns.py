"""Find the convolutions of a Relay function and what follows them."""

from __future__ import annotations

import numpy as np
from tvm import relay

from ...config import Epilogue
from ...errors import ShapeError, in_context
from ..operators import WINOGRAD, winograd_shape
from ..sites import (
    ConvSite,
    EpilogueMatch,
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
                sites.append(_site(ConvSite(name, expr), graph))
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


# ---- what follows a convolution ----------------------------------------------------------------


def match_epilogue(site: ConvSite, graph: Graph, claimed: set[relay.Expr]) -> EpilogueMatch:
    """The longest chain of bias, residual add and activation that only this convolution feeds.

    Args:
        site: a convolution that a kernel can take.
        graph: the function's graph.
        claimed: expressions that belong to the chains of other convolutions.
    """
    return _Chain(site, graph, claimed).match()


class _Chain:
    """One walk along the users of a convolution; ``tail`` is how far it came."""

    def __init__(self, site: ConvSite, graph: Graph, claimed: set[relay.Expr]) -> None:
        self.graph, self.claimed = graph, claimed
        self.tail: relay.Expr = site.call
        self.inner: list[relay.Expr] = []
        self.channels = site.shape.k
        self.bias: np.ndarray | None = None
        self.slope: np.ndarray | None = None
        self.residual: relay.Expr | None = None

    def match(self) -> EpilogueMatch:
        self._take_bias()
        self._take_residual()
        activation, leak = self._take_activation()
        epilogue = Epilogue(self.bias is not None, self.residual is not None, activation, leak)
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

    def _take_activation(self) -> tuple[str, float]:
        if (call := self._next("nn.prelu")) and _axis(call) == 1:
            self.slope = per_channel(self.graph.constant(call.args[1]), self.channels, vector=True)
            if self.slope is not None:
                self._advance(call)
                return "prelu", 0.0
        for name in ("nn.relu", "nn.leaky_relu", "clip"):
            call = self._next(name)
            if call is None:
                continue
            if name == "clip" and (call.attrs.a_min, call.attrs.a_max) != (0.0, 6.0):
                continue
            self._advance(call)
            leak = float(call.attrs.alpha) if name == "nn.leaky_relu" else 0.0
            return {"nn.relu": "relu", "clip": "relu6"}.get(name, "leaky_relu"), leak
        return "none", 0.0


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
