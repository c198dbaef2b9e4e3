"""Find the convolutions of a Relay function and what follows them."""

from __future__ import annotations

from tvm import relay

from ...errors import ShapeError, in_context
from ..epilogue_chain import EpilogueChain, pool_found
from ..operators import WINOGRAD, winograd_shape
from ..sites import ConvSite, spatial_site, unique_name, winograd_site
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
                sites.append(pool_found(site, ConvChain, graph))
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


class ConvChain(EpilogueChain):
    """The chain of a convolution in Relay."""

    prefix = ""

    def activation(self, call: relay.Expr | None) -> tuple[str, float] | None:
        """As in :class:`.EpilogueChain`."""
        if is_call_to(call, "nn.relu"):
            return "relu", 0.0
        if is_call_to(call, "clip"):
            return ("relu6", 0.0) if (call.attrs.a_min, call.attrs.a_max) == (0.0, 6.0) else None
        if is_call_to(call, "nn.leaky_relu"):
            return "leaky_relu", float(call.attrs.alpha)
        return None

    def known_shape(self, expr: relay.Expr) -> tuple[int, ...] | None:
        """As in :class:`.EpilogueChain`."""
        try:
            return static_shape(expr.checked_type, "operand")
        except ShapeError:
            return None

    def take_bias(self) -> None:
        """Go past ``nn.bias_add`` over the channels, or the addition of a constant per channel."""
        found = self.next_call("nn.bias_add")
        if found is not None and int(found[1].attrs.axis) % 4 == 1:
            self.bias = self.constant(found[1].args[1], vector=True)
            if self.bias is not None:
                self.advance(found[0])
        else:
            super().take_bias()
