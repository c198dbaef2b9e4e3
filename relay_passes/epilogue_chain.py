"""Match what follows a convolution (its epilogue), the same in Relax and in Relay.

What differs, each line of TVM says in a ``patterns.py`` of its own: how a call is read, and the
operators that only it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from tvm.ir import Op

from ..config import ACTIVATIONS, Epilogue
from ..pool_window import HALVING, Window
from .sites import RISING, ConvSite, EpilogueMatch, per_channel, pool_window


class EpilogueChain(ABC):
    """One walk along the users of a convolution; ``tail`` is how far it came.

    A node is what holds a value: a variable in Relax, the expression itself in Relay.

    Args:
        site: a convolution that a kernel can take.
        graph: the function's: who uses a node, what it is bound to, which values are constant.
        claimed: nodes that belong to the chains of other convolutions.
    """

    prefix: ClassVar[str]  # what the operators' names begin with

    def __init__(self, site: ConvSite, graph: Any, claimed: set[Any]) -> None:
        self.graph, self.claimed = graph, claimed
        self.tail: Any = site.call if site.var is None else site.var
        self.inner: list[Any] = []
        self.shape, self.channels = site.shape, site.shape.k
        self.bias: np.ndarray | None = None
        self.slope: np.ndarray | None = None
        self.residual: Any = None

    def match(self, with_pool: bool) -> EpilogueMatch:
        """The longest chain of bias, residual add, activation and pool that only this one feeds.

        Args:
            with_pool: whether a maximum, or a mean of 2x2 windows with stride 2, is part of it; not
                behind a residual.
        """
        if self.bias is None:
            self.take_bias()
        self._take_residual()
        kind, leak = self.take_prelu() or self._take_activation()
        wanted = with_pool and self.residual is None
        pool, window = self._take_pool() if wanted else ("none", HALVING)
        if pool == "max" and kind == "none":
            # The maximum of what never falls: the order makes no difference.
            kind, leak = self._take_activation(RISING)
        added = (self.bias is not None, self.residual is not None)
        epilogue = Epilogue(*added, kind, leak, pool, window)
        return EpilogueMatch(
            self.tail, tuple(self.inner), epilogue, self.bias, self.slope, self.residual
        )

    # ---- what each line of TVM says ------------------------------------------------------------

    @abstractmethod
    def activation(self, call: Any) -> tuple[str, float] | None:
        """Name and slope of the activation that ``call`` computes; None for anything else."""

    @abstractmethod
    def known_shape(self, expr: Any) -> tuple[int, ...] | None:
        """The shape of a float32 tensor that is known, None of anything else."""

    def take_bias(self) -> None:
        """Go past the addition of a constant per channel."""
        if found := self.next_call("add"):
            user, call = found
            self.bias = self.constant(self.other(call))
            if self.bias is not None:
                self.advance(user)

    def take_prelu(self) -> tuple[str, float] | None:
        """Go past a PReLU over the channels; its name and slope, or None."""
        found = self.next_call("nn.prelu")
        if found is None or int(found[1].attrs.axis) % 4 != 1:
            return None
        self.slope = self.constant(found[1].args[1], vector=True)
        if self.slope is None:
            return None
        self.advance(found[0])
        return "prelu", 0.0

    # ---- steps ---------------------------------------------------------------------------------

    def next_call(self, operator: str) -> tuple[Any, Any] | None:
        """The one use of the tail and its node, when it is a call of ``operator``."""
        user, call = self._user()
        is_call = isinstance(getattr(call, "op", None), Op)
        return (user, call) if is_call and call.op.name == self.prefix + operator else None

    def advance(self, *nodes: Any) -> None:
        """Make the last of ``nodes`` the tail; the tail so far and the others are inner."""
        self.inner += [self.tail, *nodes[:-1]]
        self.tail = nodes[-1]

    def constant(self, expr: Any, vector: bool = False) -> np.ndarray | None:
        """A constant per channel, as :func:`.sites.per_channel` reads it."""
        return per_channel(self.graph.constant(expr), self.channels, vector)

    def other(self, call: Any) -> Any:
        """The operand of two that is not the tail."""
        return call.args[1] if call.args[0].same_as(self.tail) else call.args[0]

    def _user(self) -> tuple[Any, Any]:
        """The node of the one use of the tail, and what it is bound to; (None, None) without."""
        user = self.graph.only_user(self.tail)
        free = user is not None and user not in self.claimed
        return (user, self.graph.value(user)) if free else (None, None)

    def _take_residual(self) -> None:
        found = self.next_call("add")
        if found is None or found[1].args[0].same_as(found[1].args[1]):
            return
        other = self.other(found[1])
        if self.known_shape(other) == self.known_shape(self.tail) == self.known_shape(found[1]):
            self.residual = other
            self.advance(found[0])

    def _take_activation(self, kinds: tuple[str, ...] = ACTIVATIONS) -> tuple[str, float]:
        user, call = self._user()
        taken = self.activation(call)
        if taken is None or taken[0] not in kinds:
            return "none", 0.0
        self.advance(user)
        return taken

    def _take_pool(self) -> tuple[str, Window]:
        for operator, pool in (("nn.max_pool2d", "max"), ("nn.avg_pool2d", "average")):
            found = self.next_call(operator)
            if found is None:
                continue
            window = pool_window(found[1].attrs, self.shape, self.known_shape(found[1]))
            if window is not None and (pool == "max" or window == HALVING):
                self.advance(found[0])
                return pool, window
        return "none", HALVING


def pool_found(site: ConvSite, chain: type[EpilogueChain], graph: Any) -> ConvSite:
    """``site`` with the pooling that its chain ends with, whoever else claims that.

    Args:
        site: a convolution; one that no kernel can take stays as it is.
        chain: the walk of this line of TVM.
        graph: the function's, as for the walk.
    """
    if site.reason:
        return site
    epilogue = chain(site, graph, set()).match(with_pool=True).epilogue
    return replace(site, pool=epilogue.pool, window=epilogue.window)
