"""Find the convolutions of a function and what surrounds them.

Graph shape is matched here; whether a kernel can take what was found is a named check beside it,
so that every convolution that is left alone has a reason.
"""

from __future__ import annotations

from dataclasses import replace

from tvm import relax

from ..errors import ShapeError, in_context
from .bindings import Bindings
from .epilogue_chain import EpilogueChain, pool_found
from .operators import WINOGRAD
from .ops import CONV2D, is_call_to, static_shape, winograd_shape
from .sites import ConvSite, spatial_site, unique_name, winograd_site

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
                sites.append(pool_found(site, ConvChain, bindings))
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


# ---- what follows a convolution ----------------------------------------------------------------


class ConvChain(EpilogueChain):
    """The chain of a convolution in Relax."""

    prefix = "relax."

    def __init__(self, site: ConvSite, graph: Bindings, claimed: set[relax.Var]) -> None:
        super().__init__(site, graph, claimed)
        if len(site.call.args) == 3:
            self.bias = graph.constant(site.call.args[2])

    def activation(self, call: relax.Expr | None) -> tuple[str, float] | None:
        """As :func:`activation`."""
        return activation(call)

    def known_shape(self, expr: relax.Expr) -> tuple[int, ...] | None:
        """As in :class:`.EpilogueChain`."""
        try:
            return static_shape(expr, "operand")
        except ShapeError:
            return None

    def take_prelu(self) -> tuple[str, float] | None:
        """``relax.nn.prelu(x, slope)`` or PyTorch's ``where(x > 0, x, slope * x)``."""
        taken = super().take_prelu()
        if taken is None and (variables := self._torch_prelu()) and self.slope is not None:
            self.advance(*variables)
            return "prelu", 0.0
        return taken

    def _torch_prelu(self) -> list[relax.Var]:
        users = self.graph.users(self.tail)
        if len(users) != 3 or self.graph.use_count(self.tail) != 3:
            return []
        compare, product, _ = users
        values = [self.graph.value(user) for user in users]
        names = ("relax.greater", "relax.multiply", "relax.where")
        if not all(is_call_to(value, name) for value, name in zip(values, names, strict=True)):
            return []
        zero = self.graph.constant(values[0].args[1])
        wired = values[2].args[0].same_as(compare) and values[2].args[2].same_as(product)
        ours = values[0].args[0].same_as(self.tail) and values[2].args[1].same_as(self.tail)
        alone = all(self.graph.only_user(var) is not None for var in (compare, product))
        if not (wired and ours and alone) or zero is None or zero.ndim or zero != 0:
            return []
        self.slope = self.constant(self.other(values[1]))
        return users


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
