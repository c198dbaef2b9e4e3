"""Find the convolutions of a function and what surrounds them.

Graph shape is matched here; whether a kernel can take what was found is a named check beside it,
so that every convolution that is left alone has a reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from ..config import ConvShape, Epilogue
from ..errors import ShapeError, in_context
from ..geometry import as_padding, check_shape, winograd_refusal
from .bindings import Bindings
from .operators import WINOGRAD, winograd_algorithm
from .ops import is_call_to, static_shape, winograd_shape

CONV2D = "relax.nn.conv2d"
# Function attribute: name of the variable that holds a convolution -> the layer's name.
LAYER_NAMES = "sparsewino.layer_names"


@dataclass(frozen=True, eq=False)
class ConvSite:
    """One convolution in a function.

    Attributes:
        name: the layer's name, unique in the function.
        var: the variable that holds its result.
        call: the call of ``relax.nn.conv2d`` or ``sparsewino.winograd_conv2d``.
        shape: its shape; None when a kernel cannot take it.
        weight: its weights, spatial [K, C/groups, r, s] or Winograd [alpha^2, K, C/groups].
        m: the tile that Winograd weights were made for; 0 for spatial weights.
        reason: why no kernel can take it; "" when one can.
        relu: whether its negative transformed inputs count as zero.
    """

    name: str
    var: relax.Var
    call: relax.Call
    shape: ConvShape | None = None
    weight: np.ndarray | None = None
    m: int = 0
    reason: str = ""
    relu: bool = False


@dataclass(frozen=True, eq=False)
class EpilogueMatch:
    """What follows a convolution and can run inside its kernel.

    Attributes:
        tail: the variable that holds the result of all of it.
        inner: variables of the chain that nothing else uses, the convolution's among them.
        epilogue: the same as the kernel's options.
        bias, slope: float32 [K], or None.
        residual: the tensor that is added, or None.
    """

    tail: relax.Var
    inner: tuple[relax.Var, ...]
    epilogue: Epilogue
    bias: np.ndarray | None = None
    slope: np.ndarray | None = None
    residual: relax.Expr | None = None


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
            name = _unique(str(names.get(binding.var.name, binding.var.name)), taken)
            with in_context(f"layer {name!r}"):
                sites.append(_site(name, binding.var, binding.value, bindings))
    return sites


def _unique(name: str, taken: set[str]) -> str:
    """``name``, or ``name:2`` and so on for a layer that the network calls again."""
    candidate, calls = name, 1
    while candidate in taken:
        calls += 1
        candidate = f"{name}:{calls}"
    taken.add(candidate)
    return candidate


def _site(name: str, var: relax.Var, call: relax.Call, bindings: Bindings) -> ConvSite:
    weight = bindings.constant(call.args[1])
    if is_call_to(call, WINOGRAD):
        algorithm, shape = winograd_algorithm(call.attrs), winograd_shape(call)
        if weight is None:
            return ConvSite(name, var, call, reason="its weights are not constant")
        if len(call.args) == 3 and bindings.constant(call.args[2]) is None:
            return ConvSite(name, var, call, reason="its bias is not constant")
        if not algorithm.is_canonical:
            return ConvSite(name, var, call, reason=f"its {algorithm} has points of its own")
        relu = bool(call.attrs["relu"])
        return _checked(ConvSite(name, var, call, shape, weight, algorithm.m, relu=relu))
    reason = _spatial_refusal(call, weight)
    if reason:
        return ConvSite(name, var, call, reason=reason)
    return _checked(ConvSite(name, var, call, _spatial_shape(call, weight), weight))


def _spatial_shape(call: relax.Call, weight: np.ndarray) -> ConvShape:
    attrs = call.attrs
    padding, stride, dilation = (
        tuple(int(v) for v in values) for values in (attrs.padding, attrs.strides, attrs.dilation)
    )
    n, c, h, w = static_shape(call.args[0], "data")
    k, _, r, s = weight.shape
    groups = int(attrs.groups)
    return ConvShape(n, c, h, w, k, r, as_padding(padding), groups, stride, dilation, s)


def _checked(site: ConvSite) -> ConvSite:
    """``site``, or the reason why no kernel takes its shape."""
    try:
        check_shape(site.shape)
        reason = winograd_refusal(site.shape) if site.m else ""
    except ShapeError as error:
        reason = str(error)
    return ConvSite(site.name, site.var, site.call, reason=reason) if reason else site


def _spatial_refusal(call: relax.Call, weight: np.ndarray | None) -> str:
    """Why no kernel can take a plain convolution, whatever its shape; "" when one can."""
    attrs = call.attrs
    static_shape(call.args[0], "data")
    if attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW" or attrs.out_layout != "NCHW":
        return f"its layout is {attrs.data_layout} with {attrs.kernel_layout} weights, not NCHW"
    return "its weights are not constant" if weight is None else ""


# ---- what follows a convolution ----------------------------------------------------------------


def match_epilogue(site: ConvSite, bindings: Bindings, claimed: set[relax.Var]) -> EpilogueMatch:
    """The longest chain of bias, residual add and activation that only this convolution feeds.

    Args:
        site: a convolution that a kernel can take.
        bindings: the function's bindings.
        claimed: variables that belong to the chains of other convolutions.
    """
    return _Chain(site, bindings, claimed).match()


class _Chain:
    """One walk along the users of a convolution; ``tail`` is how far it came."""

    def __init__(self, site: ConvSite, bindings: Bindings, claimed: set[relax.Var]) -> None:
        self.bindings, self.claimed = bindings, claimed
        self.tail = site.var
        self.inner: list[relax.Var] = []
        self.channels = site.shape.k
        self.bias = bindings.constant(site.call.args[2]) if len(site.call.args) == 3 else None
        self.slope: np.ndarray | None = None
        self.residual: relax.Expr | None = None

    def match(self) -> EpilogueMatch:
        if self.bias is None:
            self._take_bias()
        self._take_residual()
        activation, leak = self._take_prelu() or self._take_activation()
        epilogue = Epilogue(
            self.bias is not None, self.residual is not None, activation, float(leak)
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

    def _take_activation(self) -> tuple[str, float]:
        for name in ("relax.nn.relu", "relax.nn.relu6", "relax.nn.leakyrelu", "relax.clip"):
            found = self._next(name)
            if found is not None:
                user, call = found
                taken = _activation(call)
                if taken is not None:
                    self._advance(user)
                    return taken
        return "none", 0.0

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
        """A constant that holds one float32 per output channel (or one for all), as [K]."""
        value = self.bindings.constant(expr)
        if value is None or value.dtype != np.float32:
            return None
        per_channel = (self.channels,) if vector else (self.channels, 1, 1)
        if value.size not in (1, self.channels) or value.ndim > 4:
            return None
        if value.size > 1 and value.shape[-len(per_channel) :] != per_channel:
            return None
        return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), (self.channels,)))

    def _shape(self, expr: relax.Expr) -> tuple[int, ...] | None:
        try:
            return static_shape(expr, "residual")
        except ShapeError:
            return None


def _activation(call: relax.Call) -> tuple[str, float] | None:
    """Name and slope of the activation that ``call`` computes; None for another clip."""
    name = call.op.name
    if name == "relax.clip":
        low, high = (float(arg.value if hasattr(arg, "value") else arg) for arg in call.args[1:])
        return ("relu6", 0.0) if (low, high) == (0.0, 6.0) else None
    if name == "relax.nn.leakyrelu":
        return "leaky_relu", float(call.attrs.alpha)
    return name.removeprefix("relax.nn."), 0.0
