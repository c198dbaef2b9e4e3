"""Reading and rebuilding one Relay function as a graph: who uses what, which values are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from tvm import relay
from tvm.ir import IRModule, Op, SourceName, Span

# The operators that frontends and layout conversion commonly wrap constants in.
_ELEMENTWISE: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "sqrt": np.sqrt,
}
_RESHAPES = ("reshape", "expand_dims", "squeeze")
_MOVES = ("transpose", "layout_transform")


class Graph:
    """The expressions of one function whose types are known.

    Attributes:
        func: the function.
        order: its expressions, those that others use before these.
    """

    def __init__(self, func: relay.Function) -> None:
        self.func = func
        self.order: list[relay.Expr] = []
        relay.analysis.post_order_visit(func.body, self.order.append)
        self._users: dict[relay.Expr, list[relay.Expr]] = {}
        for expr in self.order:
            for child in _children(expr):
                self._users.setdefault(child, []).append(expr)
        self._constants: dict[relay.Expr, np.ndarray | None] = {}

    def only_user(self, expr: relay.Expr) -> relay.Expr | None:
        """The one expression that uses ``expr``, once; None if there are more, or none."""
        users = self._users.get(expr, [])
        return users[0] if len(users) == 1 and not expr.same_as(self.func.body) else None

    def value(self, expr: relay.Expr) -> relay.Expr:
        """``expr`` itself, which no variable stands for; in Relax one does."""
        return expr

    def constant(self, expr: relay.Expr) -> np.ndarray | None:
        """The value of an expression made of constants, reshapes and simple arithmetic, or None."""
        if expr not in self._constants:
            self._constants[expr] = self._evaluate(expr)
        return self._constants[expr]

    def _evaluate(self, expr: relay.Expr) -> np.ndarray | None:
        if isinstance(expr, relay.Constant):
            return expr.data.numpy()
        if not (isinstance(expr, relay.Call) and isinstance(expr.op, Op)):
            return None
        if expr.op.name not in (*_ELEMENTWISE, *_RESHAPES, *_MOVES):
            return None
        operands = [self.constant(arg) for arg in expr.args]
        known = all(operand is not None for operand in operands)
        return _computed(expr, operands) if known else None


def _computed(call: relay.Call, operands: list[np.ndarray]) -> np.ndarray | None:
    """What an operator of those known here makes of arrays."""
    name = call.op.name
    if name in _ELEMENTWISE:
        return _ELEMENTWISE[name](*operands)
    if name in _RESHAPES:
        return operands[0].reshape([int(d) for d in call.checked_type.shape])
    if name == "transpose":
        return operands[0].transpose([int(a) for a in call.attrs.axes or ()] or None)
    return _with_layout(operands[0], call.attrs.src_layout, call.attrs.dst_layout)


def _with_layout(array: np.ndarray, source: str, target: str) -> np.ndarray | None:
    """``array`` with its axes in another order, None for layouts that split them."""
    if sorted(source) != sorted(target) or not source.isalpha():
        return None
    return array.transpose([source.index(axis) for axis in target])


def _children(expr: relay.Expr) -> Iterator[relay.Expr]:
    """The expressions that ``expr`` uses directly."""
    if isinstance(expr, relay.Call):
        yield from expr.args
        if not isinstance(expr.op, Op):
            yield expr.op
    elif isinstance(expr, relay.Tuple):
        yield from expr.fields
    elif isinstance(expr, relay.TupleGetItem):
        yield expr.tuple_value
    elif isinstance(expr, relay.Function):
        yield expr.body
    elif isinstance(expr, relay.Let):
        yield from (expr.value, expr.body)
    elif isinstance(expr, relay.If):
        yield from (expr.cond, expr.true_branch, expr.false_branch)
    elif isinstance(expr, relay.Match):
        yield expr.data
        yield from (clause.rhs for clause in expr.clauses)
    elif isinstance(expr, relay.RefCreate | relay.RefWrite):
        yield expr.value
    if isinstance(expr, relay.RefRead | relay.RefWrite):
        yield expr.ref


def is_call_to(expr: object, name: str) -> bool:
    """Whether ``expr`` is a call of the operator ``name``."""
    return isinstance(expr, relay.Call) and isinstance(expr.op, Op) and expr.op.name == name


def source_name(expr: relay.Expr) -> str:
    """Where a frontend says that ``expr`` comes from; "" where it does not."""
    return str(expr.span.source_name.name) if expr.span is not None else ""


def named_constant(array: np.ndarray, name: str) -> relay.Constant:
    """A constant that says where it comes from."""
    span = Span(SourceName(name), 0, 0, 0, 0)
    return relay.Constant(relay.const(np.ascontiguousarray(array)).data, span)


New = Callable[[Callable[[relay.Expr], relay.Expr]], relay.Expr]


def rebuilt(graph: Graph, replacements: Mapping[relay.Expr, New]) -> relay.Function:
    """The function with some expressions replaced.

    A replacement is a function that gets one for looking up what another expression of the graph
    has become, and returns the new expression. Expressions are visited in order, so that networks
    of any depth take no deep recursion.
    """
    mutator = relay.ExprMutator()
    for expr in graph.order:
        new = replacements.get(expr)
        if new is None:
            mutator.visit(expr)
        else:
            mutator.memo_map[expr] = new(mutator.visit)
    func = graph.func
    return relay.Function(
        list(func.params), mutator.visit(func.body), None, func.type_params, func.attrs
    )


def map_functions(mod: IRModule, rewrite: Callable[[relay.Function], relay.Function]) -> IRModule:
    """``mod`` with every function that describes a network rewritten, and all types inferred."""
    result = IRModule(mod.functions, mod.type_definitions, attrs=mod.attrs)
    for name, func in mod.functions.items():
        if is_graph(func):
            result.update_func(name, rewrite(func))
    return relay.transform.InferType()(result)


def is_graph(func: object) -> bool:
    """Whether ``func`` describes a network, and is no primitive or another compiler's."""
    if not isinstance(func, relay.Function):
        return False
    return not (func.attrs and any(k in func.attrs for k in ("Primitive", "Composite", "Compiler")))
