"""Find the convolutions of a Relay function and what follows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relay

from ...config import ConvShape, Epilogue
from ...errors import ShapeError, in_context
from ...geometry import as_padding, check_shape, winograd_refusal
from ..operators import WINOGRAD, winograd_algorithm, winograd_shape
from .graph import Graph, is_call_to, source_name
from .ops import static_shape

CONV2D = "nn.conv2d"
_SUFFIX = ".weight"


@dataclass(frozen=True, eq=False)
class ConvSite:
    """One convolution in a function.

    Attributes:
        name: the layer's name, unique in the function.
        call: the call of ``nn.conv2d`` or ``sparsewino.winograd_conv2d``.
        shape: its shape; None when a kernel cannot take it.
        weight: its weights, spatial [K, C/groups, r, s] or Winograd [alpha^2, K, C/groups].
        m: the tile that Winograd weights were made for; 0 for spatial weights.
        relu: whether its negative transformed inputs count as zero.
        reason: why no kernel can take it; "" when one can.
    """

    name: str
    call: relay.Call
    shape: ConvShape | None = None
    weight: np.ndarray | None = None
    m: int = 0
    relu: bool = False
    reason: str = ""


@dataclass(frozen=True, eq=False)
class EpilogueMatch:
    """What follows a convolution and can run inside its kernel.

    Attributes:
        tail: the expression that all of it results in.
        inner: expressions of the chain that nothing else uses, the convolution's among them.
        epilogue: the same as the kernel's options.
        bias, slope: float32 [K], or None.
        residual: the tensor that is added, or None.
    """

    tail: relay.Expr
    inner: tuple[relay.Expr, ...]
    epilogue: Epilogue
    bias: np.ndarray | None = None
    slope: np.ndarray | None = None
    residual: relay.Expr | None = None


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
            name = _unique(layer_name(expr) or f"conv2d_{len(sites)}", taken)
            with in_context(f"layer {name!r}"):
                sites.append(_site(name, expr, graph))
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


def _unique(name: str, taken: set[str]) -> str:
    """``name``, or ``name:2`` and so on for a layer that the network calls again."""
    candidate, calls = name, 1
    while candidate in taken:
        calls += 1
        candidate = f"{name}:{calls}"
    taken.add(candidate)
    return candidate


def _site(name: str, call: relay.Call, graph: Graph) -> ConvSite:
    weight = graph.constant(call.args[1])
    data = static_shape(call.args[0].checked_type, "data")
    if weight is None:
        return ConvSite(name, call, reason="its weights are not constant")
    attrs = call.attrs
    if is_call_to(call, WINOGRAD):
        winograd = winograd_algorithm(attrs)
        if not winograd.is_canonical:
            return ConvSite(name, call, reason=f"its {winograd} has points of its own")
        shape = winograd_shape(attrs, data, weight.shape)
        return _checked(ConvSite(name, call, shape, weight, winograd.m, bool(attrs["relu"])))
    layouts = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout or attrs.data_layout)
    if layouts != ("NCHW", "OIHW", "NCHW"):
        reason = f"its layout is {layouts[0]} with {layouts[1]} weights, not NCHW"
        return ConvSite(name, call, reason=reason)
    return _checked(ConvSite(name, call, _spatial_shape(attrs, data, weight), weight))


def _spatial_shape(
    attrs: relay.op.op_attrs.Conv2DAttrs, data: tuple, weight: np.ndarray
) -> ConvShape:
    padding, stride, dilation = (
        tuple(int(v) for v in values) for values in (attrs.padding, attrs.strides, attrs.dilation)
    )
    n, c, h, w = data
    k, _, r, s = weight.shape
    return ConvShape(n, c, h, w, k, r, as_padding(padding), int(attrs.groups), stride, dilation, s)


def _checked(site: ConvSite) -> ConvSite:
    """``site``, or the reason why no kernel takes its shape."""
    try:
        check_shape(site.shape)
        reason = winograd_refusal(site.shape) if site.m else ""
    except ShapeError as error:
        reason = str(error)
    return ConvSite(site.name, site.call, reason=reason) if reason else site


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


def per_channel(value: np.ndarray | None, channels: int, vector: bool = False) -> np.ndarray | None:
    """One float32 per output channel (or one for all) as [K], None if ``value`` is anything else.

    Args:
        value: a constant.
        channels: output channels.
        vector: whether it is given as [K], not as [1, K, 1, 1] or [K, 1, 1].
    """
    if value is None or value.dtype != np.float32 or value.size not in (1, channels):
        return None
    wanted = (channels,) if vector else (channels, 1, 1)
    if value.ndim > 4 or (value.size > 1 and value.shape[-len(wanted) :] != wanted):
        return None
    return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), (channels,)))
