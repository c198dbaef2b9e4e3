"""Maps that are added, overwritten by the sum: the output lies where what is added lay.

Where maps do not stay in the caches that halves what an addition brings along: a line is read and
written back, instead of one read, another read because it is written to, and that written back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import tvm
from tvm import relax
from tvm.ir import GlobalVar, IRModule

from .._compat import in_memory_of
from .bindings import is_graph
from .concat_in_place import called, prim_func
from .ops import is_call_to

# Attribute of a function that adds its last operand but one to its last, the output, and stores
# every number once, after it has read the one that it adds to it.
ADDS = "sparsewino.adds_in_place"
_ALLOC = "relax.builtin.alloc_tensor"


@tvm.transform.module_pass(opt_level=0, name="AddInPlace")
class AddInPlace:
    """Let a kernel write its output over the map that it adds.

    ``f(x, a, b)``, which reads ``a`` and writes ``b``, becomes ``f'(x, a)``, and whoever reads
    ``b`` reads ``a``.

    Checked: the kernel says that it can; both tensors are allocated here, used by calls of
    PrimFuncs alone and not returned; the kernel reads ``a`` as nothing else, and nobody reads it
    afterwards.

    It runs between CallTIRRewrite and ConcatInPlace.
    """

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod`` that is one block of bindings."""
        builder, before = relax.BlockBuilder(mod), called(mod)
        for name, func in mod.functions.items():
            if is_graph(func) and len(func.body.blocks) == 1:
                uses = _uses(func, mod)
                places = _places(func, mod, uses)
                if places:
                    builder.update_func(name, _rewritten(func, uses, places, builder))
        result = builder.get()
        for name in before - called(result):
            del result[name]
        return result


@dataclass
class _Uses:
    """How a block uses tensors.

    Attributes:
        aliases: variable -> the variable of the allocation that it stands for.
        allocated: variables that are allocated in the block.
        stuck: of these, those that something else than a PrimFunc uses.
        last: allocation -> number of the last binding that uses it.
    """

    aliases: dict[relax.Var, relax.Var] = field(default_factory=dict)
    allocated: set[relax.Var] = field(default_factory=set)
    stuck: set[relax.Var] = field(default_factory=set)
    last: dict[relax.Var, int] = field(default_factory=dict)

    def origin(self, expr: relax.Expr) -> relax.Expr:
        """``expr``, or the allocation that it stands for."""
        return self.aliases.get(expr, expr) if isinstance(expr, relax.Var) else expr


def _uses(func: relax.Function, mod: IRModule) -> _Uses:
    uses = _Uses(stuck=set(relax.analysis.used_vars(func.body.body)))
    for number, binding in enumerate(func.body.blocks[0].bindings):
        value = binding.value
        if isinstance(value, relax.Var):
            uses.aliases[binding.var] = uses.origin(value)
            continue
        if is_call_to(value, _ALLOC):
            uses.allocated.add(binding.var)
        whole = value.args if prim_func(value, mod) is not None else ()
        plain = {arg for arg in whole if isinstance(arg, relax.Var)}
        nested = [arg for arg in whole if not isinstance(arg, relax.Var)] if whole else [value]
        uses.stuck.update(var for expr in nested for var in relax.analysis.used_vars(expr))
        uses.last.update((uses.origin(var), number) for var in plain)
    uses.stuck = {uses.origin(var) for var in uses.stuck}
    return uses


def _places(func: relax.Function, mod: IRModule, uses: _Uses) -> dict[relax.Var, relax.Var]:
    """Allocations of outputs that are not needed -> the allocation that each one lies in."""
    places: dict[relax.Var, relax.Var] = {}
    for number, binding in enumerate(func.body.blocks[0].bindings):
        kernel = prim_func(binding.value, mod)
        if kernel is None or not (kernel.attrs and kernel.attrs.get(ADDS)):
            continue
        args = [uses.origin(arg) for arg in binding.value.args]
        *others, added, output = (places.get(arg, arg) for arg in args)
        free = {added, output} <= uses.allocated - uses.stuck and added not in {*others, output}
        if free and uses.last[added] == number:
            places[output] = added
            uses.last[added] = uses.last[output]
    return places


def _rewritten(
    func: relax.Function,
    uses: _Uses,
    places: Mapping[relax.Var, relax.Var],
    builder: relax.BlockBuilder,
) -> relax.Function:
    variants: dict[GlobalVar, GlobalVar] = {}
    kept = []
    for binding in func.body.blocks[0].bindings:
        value = binding.value
        if binding.var in places:
            continue
        if isinstance(value, relax.Var):
            value = places.get(value, value)
        elif isinstance(value, relax.Call) and value.args and value.args[-1] in places:
            *others, _, output = value.args
            if value.op not in variants:
                made = in_memory_of(builder.get()[value.op], len(others))
                variants[value.op] = builder.add_func(made, f"{value.op.name_hint}_in_place")
            value = relax.Call(
                variants[value.op], [*others, places[output]], value.attrs, value.ty_args
            )
            value = builder.normalize(value)
        kept.append(relax.VarBinding(binding.var, value))
    body = relax.SeqExpr([relax.BindingBlock(kept)], func.body.body)
    return relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs)
