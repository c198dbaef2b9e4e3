"""The tensors that a lowered function allocates, and which bindings use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tvm import relax
from tvm.ir import GlobalVar, IRModule

from .._compat import tir
from .bindings import is_graph
from .ops import is_call_to

_ALLOC = "relax.builtin.alloc_tensor"


@dataclass
class Allocations:
    """How a block uses tensors.

    Attributes:
        aliases: variable -> the variable of the allocation that it stands for.
        allocated: variable -> number of the binding that allocates it.
        stuck: variables that must stay tensors of their own: returned, or used by something else
            than a PrimFunc.
        last: allocation -> number of the last call of a PrimFunc that uses it.
    """

    aliases: dict[relax.Var, relax.Var] = field(default_factory=dict)
    allocated: dict[relax.Var, int] = field(default_factory=dict)
    stuck: set[relax.Var] = field(default_factory=set)
    last: dict[relax.Var, int] = field(default_factory=dict)

    def origin(self, expr: relax.Expr) -> relax.Expr:
        """``expr``, or the allocation that it stands for."""
        return self.aliases.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def can_move(self, expr: relax.Expr) -> bool:
        """Whether ``expr`` is an allocation that may lie in another one."""
        return expr in self.allocated and expr not in self.stuck


def find_allocations(func: relax.Function, mod: IRModule) -> Allocations:
    """The allocations of a function that is one block of bindings."""
    found = Allocations(stuck=set(relax.analysis.used_vars(func.body.body)))
    for number, binding in enumerate(func.body.blocks[0].bindings):
        value = binding.value
        if isinstance(value, relax.Var):
            found.aliases[binding.var] = found.origin(value)
        elif is_call_to(value, _ALLOC):
            found.allocated[binding.var] = number
        elif prim_func(value, mod) is not None:
            nested = [arg for arg in value.args if not isinstance(arg, relax.Var)]
            found.stuck.update(v for arg in nested for v in relax.analysis.used_vars(arg))
            plain = [arg for arg in value.args if isinstance(arg, relax.Var)]
            found.last.update((found.origin(var), number) for var in plain)
        else:
            found.stuck.update(relax.analysis.used_vars(value))
    found.stuck = {found.origin(var) for var in found.stuck}
    return found


def prim_func(value: relax.Expr, mod: IRModule) -> tir.PrimFunc | None:
    """The function that ``value`` calls, if it is a PrimFunc."""
    if not (isinstance(value, relax.Call) and isinstance(value.op, GlobalVar)):
        return None
    called = mod[value.op]
    return called if isinstance(called, tir.PrimFunc) else None


def rewrite_blocks(
    mod: IRModule,
    rewrite: Callable[[relax.Function, relax.BlockBuilder], list[relax.VarBinding] | None],
) -> IRModule:
    """``mod`` with new bindings in every network that is one block; PrimFuncs without a caller go.

    Args:
        mod: a lowered module.
        rewrite: gives the bindings of a function, None where it stays; may add functions.
    """
    builder, before = relax.BlockBuilder(mod), _called(mod)
    for name, func in mod.functions.items():
        if not is_graph(func) or len(func.body.blocks) != 1:
            continue
        bindings = rewrite(func, builder)
        if bindings is not None:
            body = relax.SeqExpr([relax.BindingBlock(bindings)], func.body.body)
            new = relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs)
            builder.update_func(name, new)
    result = builder.get()
    for name in before - _called(result):
        del result[name]
    return result


def _called(mod: IRModule) -> set[GlobalVar]:
    """Every PrimFunc that a network of ``mod`` calls."""
    found = set()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, GlobalVar) and isinstance(mod[expr], tir.PrimFunc):
            found.add(expr)

    for func in mod.functions.values():
        if is_graph(func):
            relax.analysis.post_order_visit(func, visit)
    return found
