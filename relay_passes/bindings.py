"""Reading and rebuilding the bindings of a Relax function in A-normal form.

The passes here replace whole chains of bindings whose last variable keeps its type. That needs no
mutator: new values are put in place of old ones, dead bindings are dropped, variables stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tvm import relax
from tvm.ir import GlobalVar, IRModule, Op

from .._compat import constant_array, tir

# The elementwise operators that constants are commonly wrapped in by frontends.
_ELEMENTWISE: dict[str, Callable[..., np.ndarray]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.sqrt": np.sqrt,
    "relax.where": np.where,
}


class Bindings:
    """The top-level bindings of one function: who defines a variable, and who uses it.

    Args:
        func: the function.
        scope: what names of its layers end with, so that they are unique in a module of several.

    Attributes:
        func, scope: as given.
        order: its variable bindings in program order, control flow's inner ones not included.
    """

    def __init__(self, func: relax.Function, scope: str = "") -> None:
        self.func, self.scope = func, scope
        blocks = func.body.blocks if isinstance(func.body, relax.SeqExpr) else []
        everything = [binding for block in blocks for binding in block.bindings]
        self.order = [b for b in everything if isinstance(b, relax.VarBinding)]
        self._values = {b.var: b.value for b in self.order}
        self._users: dict[relax.Var, list[relax.Var]] = {}
        self._uses: Counter[relax.Var] = Counter()
        for binding in everything:
            for used in relax.analysis.used_vars(binding.value):
                self._users.setdefault(used, []).append(binding.var)
                self._uses[used] += 1
        result = func.body.body if isinstance(func.body, relax.SeqExpr) else func.body
        self._uses.update(relax.analysis.used_vars(result))

    def value(self, expr: relax.Expr) -> relax.Expr:
        """What a variable is bound to, or ``expr`` itself."""
        return self._values.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def only_user(self, var: relax.Var) -> relax.Var | None:
        """The variable bound to the one expression that uses ``var``; None if there are more."""
        users = self._users.get(var, [])
        return users[0] if len(users) == 1 and self._uses[var] == 1 else None

    def users(self, var: relax.Var) -> list[relax.Var]:
        """The variables bound to expressions that use ``var``."""
        return list(self._users.get(var, []))

    def use_count(self, var: relax.Var) -> int:
        """In how many expressions ``var`` is used, the function's result included."""
        return self._uses[var]

    def constant(self, expr: relax.Expr) -> np.ndarray | None:
        """The value of an expression made of constants, reshapes and simple arithmetic, or None."""
        expr = self.value(expr)
        if (array := constant_array(expr)) is not None:
            return array
        if not (isinstance(expr, relax.Call) and isinstance(expr.op, Op)):
            return None
        if expr.op.name == "relax.reshape":
            data, shape = self.constant(expr.args[0]), getattr(expr.ty.shape, "values", None)
            if data is None or shape is None or not all(isinstance(d, tir.IntImm) for d in shape):
                return None
            return data.reshape([int(d) for d in shape])
        if expr.op.name in _ELEMENTWISE:
            operands = [self.constant(arg) for arg in expr.args]
            # NumPy divides integers into floats, TVM into integers.
            if all(o is not None and o.dtype in (np.float32, np.bool_) for o in operands):
                return _ELEMENTWISE[expr.op.name](*operands)
        return None


def replaced(
    func: relax.Function,
    values: Mapping[relax.Var, relax.Expr],
    dropped: frozenset[relax.Var] | set[relax.Var],
    before: Mapping[relax.Var, Sequence[relax.VarBinding]] | None = None,
) -> relax.Function:
    """``func`` with new values for some variables and some bindings dropped, dead code removed.

    A new value must have the type of its variable; nothing left may use a dropped variable.
    ``before`` holds new bindings that go right before that of a variable.
    """
    builder = relax.BlockBuilder()
    blocks = []
    for block in func.body.blocks:
        bindings = []
        for binding in block.bindings:
            for added in (before or {}).get(binding.var, ()):
                bindings.append(relax.VarBinding(added.var, builder.normalize(added.value)))
            if binding.var in values:
                value = builder.normalize(values[binding.var])
                bindings.append(relax.VarBinding(binding.var, value))
            elif binding.var not in dropped:
                bindings.append(binding)
        kind = relax.DataflowBlock if isinstance(block, relax.DataflowBlock) else relax.BindingBlock
        blocks.append(kind(bindings))
    body = relax.SeqExpr(blocks, func.body.body)
    rebuilt = relax.Function(
        func.params, builder.normalize(body), func.ret_ty, func.is_pure, func.attrs
    )
    return relax.analysis.remove_all_unused(rebuilt)


def map_functions(mod: IRModule, rewrite: Callable[[relax.Function], relax.Function]) -> IRModule:
    """``mod`` with every function that describes a network replaced by ``rewrite`` of it."""
    return map_bindings(mod, lambda bindings: rewrite(bindings.func))


def map_bindings(mod: IRModule, rewrite: Callable[[Bindings], relax.Function]) -> IRModule:
    """As :func:`map_functions` for what needs the bindings anyway."""
    result = mod.clone()
    for name, bindings in graphs(mod).items():
        result.update_func(name, rewrite(bindings))
    return result


def graphs(mod: IRModule) -> dict[GlobalVar, Bindings]:
    """The bindings of every function that describes a network; those of "main" have no scope."""
    return {
        name: Bindings(func, "" if name.name_hint == "main" else f"@{name.name_hint}")
        for name, func in mod.functions.items()
        if is_graph(func)
    }


def is_graph(func: object) -> bool:
    """Whether ``func`` is a Relax function that describes a network, not a fused primitive."""
    if not isinstance(func, relax.Function):
        return False
    return not (func.attrs and (func.attrs.get("Primitive") or func.attrs.get("Composite")))
