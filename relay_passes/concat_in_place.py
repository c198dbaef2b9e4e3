"""Concatenations that nobody computes: what is joined is written where it belongs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relax
from tvm.ir import GlobalVar, IRModule

from .._compat import tir, with_slices
from ..errors import ShapeError
from .bindings import is_graph
from .operators import OPAQUE
from .ops import is_call_to, static_shape

# Attribute of a function that joins its first operands into its last, one after the other.
JOINS = "sparsewino.joins"
_ALLOC = "relax.builtin.alloc_tensor"


def legalize_concat(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A concatenation by TVM's own lowering, marked where it may go away.

    Its parts must lie one after the other, and one of them come from a kernel. Others are better
    fused into it, while nothing is fused with one that is marked.
    """
    made = call.op.get_attr("FLegalize")(builder, call)
    if not _parts_follow_each_other(call) or not _are_computed(builder, call.args[0].fields):
        return made
    function = made.args[0]
    marks = {"op_pattern": OPAQUE, JOINS: True}
    builder.update_func(function, builder.get()[function].with_attrs(marks))
    return made


def _parts_follow_each_other(call: relax.Call) -> bool:
    parts = call.args[0]
    if not isinstance(parts, relax.Tuple) or call.attrs.axis is None:
        return False
    try:
        shapes = [static_shape(part, "part") for part in parts.fields]
    except ShapeError:
        return False
    axis = int(call.attrs.axis)
    return all(math.prod(shape[: axis % len(shape)]) == 1 for shape in shapes)


def _are_computed(builder: relax.BlockBuilder, parts: Sequence[relax.Expr]) -> bool:
    """Whether all parts are results in this function, each once, and a kernel's among them."""
    made = [builder.lookup_binding(part) for part in parts if isinstance(part, relax.Var)]
    made = [value for value in made if value is not None]
    return len(set(parts)) == len(made) == len(parts) and any(_is_opaque(builder, v) for v in made)


def _is_opaque(builder: relax.BlockBuilder, value: relax.Expr) -> bool:
    """Whether ``value`` calls a function that nothing is fused with."""
    name = value.args[0] if is_call_to(value, "relax.call_tir") else None
    attrs = builder.get()[name].attrs if name is not None else None
    return bool(attrs) and attrs.get("op_pattern") == OPAQUE


@tvm.transform.module_pass(opt_level=0, name="ConcatInPlace")
class ConcatInPlace:
    """Write the parts of a concatenation into its result.

    ``f(x, a); g(y, b); concatenate(a, b, c)`` becomes ``f'(x, c, 0); g'(y, c, size of a)``, where
    f' and g' are f and g with an operand that is part of a larger tensor. Whoever reads ``a`` or
    ``b`` besides reads it there. A result that is itself a part of another one is, too.

    Checked: the parts lie one after the other in the result, as they do along channels for batch
    1; each is allocated here, used by calls of PrimFuncs alone, not returned, and a part of nothing
    else. A concatenation with any other part stays as it is.

    Tensors are passed whole and not as views: kernels take only tensors that start where their
    memory does, and so the memory plan sees how long each is in use.

    It runs between CallTIRRewrite and StaticPlanBlockMemory.
    """

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod`` that is one block of bindings."""
        builder, before = relax.BlockBuilder(mod), called(mod)
        for name, func in mod.functions.items():
            if is_graph(func) and len(func.body.blocks) == 1:
                moves = _find_moves(func, mod)
                if moves.gone:
                    builder.update_func(name, _moved(func, moves, builder))
        result = builder.get()
        for name in before - called(result):
            del result[name]
        return result


@dataclass
class _Moves:
    """What is found in a block.

    Attributes:
        aliases: variable -> the variable of the allocation that it stands for.
        allocated: variable -> number of the binding that allocates it.
        stuck: variables that must stay tensors of their own.
        places: part -> the tensor that it lies in, and its first element there.
        gone: concatenations that need not be computed, by number of the binding.
    """

    aliases: dict[relax.Var, relax.Var] = field(default_factory=dict)
    allocated: dict[relax.Var, int] = field(default_factory=dict)
    stuck: set[relax.Var] = field(default_factory=set)
    places: dict[relax.Var, tuple[relax.Var, int]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)

    def origin(self, expr: relax.Expr) -> relax.Expr:
        """``expr``, or the allocation that it stands for."""
        return self.aliases.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def join(self, number: int, call: relax.Call) -> None:
        """Place the parts that the concatenation ``call``, binding ``number``, joins."""
        *parts, result = (self.origin(arg) for arg in call.args)
        distinct = len({*parts, result}) == len(call.args)
        if not distinct or not all(map(self._can_move, parts)):
            return
        whole, start = self.places.get(result, (result, 0))
        for part in parts:
            self.places[part] = whole, start
            start += math.prod(static_shape(part, "part"))
        self.gone.add(number)

    def _can_move(self, part: relax.Expr) -> bool:
        return part in self.allocated and part not in self.stuck and part not in self.places


def _find_moves(func: relax.Function, mod: IRModule) -> _Moves:
    """Which parts move where; concatenations from the last to the first, outer before inner."""
    moves = _Moves(stuck=set(relax.analysis.used_vars(func.body.body)))
    joins = []
    for number, binding in enumerate(func.body.blocks[0].bindings):
        value = binding.value
        if isinstance(value, relax.Var):
            moves.aliases[binding.var] = moves.origin(value)
        elif is_call_to(value, _ALLOC):
            moves.allocated[binding.var] = number
        elif (called := prim_func(value, mod)) is not None:
            nested = [arg for arg in value.args if not isinstance(arg, relax.Var)]
            moves.stuck.update(v for arg in nested for v in relax.analysis.used_vars(arg))
            if called.attrs and called.attrs.get(JOINS):
                joins.append((number, value))
        else:
            moves.stuck.update(relax.analysis.used_vars(value))
    moves.stuck = {moves.origin(var) for var in moves.stuck}
    for number, call in reversed(joins):
        moves.join(number, call)
    return moves


def prim_func(value: relax.Expr, mod: IRModule) -> tir.PrimFunc | None:
    """The function that ``value`` calls, if it is a PrimFunc."""
    if not (isinstance(value, relax.Call) and isinstance(value.op, GlobalVar)):
        return None
    called = mod[value.op]
    return called if isinstance(called, tir.PrimFunc) else None


def _moved(func: relax.Function, moves: _Moves, builder: relax.BlockBuilder) -> relax.Function:
    """``func`` with all moves done; a whole is allocated where the first of its parts was."""
    bindings = func.body.blocks[0].bindings
    first = {whole: moves.allocated[whole] for whole, _ in moves.places.values()}
    for part, (whole, _) in moves.places.items():
        first[whole] = min(first[whole], moves.allocated[part])
    wholes = {number: [] for number in first.values()}
    for whole, number in first.items():
        wholes[number].append(bindings[moves.allocated[whole]])
    variants: dict[tuple[GlobalVar, tuple[int, ...]], GlobalVar] = {}
    kept = []
    for number, binding in enumerate(bindings):
        kept += wholes.get(number, [])
        where = moves.origin(binding.var)
        if number in moves.gone or where in moves.places or binding.var in first:
            continue
        value = binding.value
        if isinstance(value, relax.Call) and any(
            moves.origin(a) in moves.places for a in value.args
        ):
            value = builder.normalize(_call_in_place(value, moves, builder, variants))
        kept.append(relax.VarBinding(binding.var, value))
    body = relax.SeqExpr([relax.BindingBlock(kept)], func.body.body)
    return relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs)


def _call_in_place(
    call: relax.Call,
    moves: _Moves,
    builder: relax.BlockBuilder,
    variants: dict[tuple[GlobalVar, tuple[int, ...]], GlobalVar],
) -> relax.Call:
    args, starts, sizes = list(call.args), {}, []
    for position, arg in enumerate(call.args):
        if moves.origin(arg) in moves.places:
            args[position], starts[position] = moves.places[moves.origin(arg)]
            sizes.append(f"{position}x{math.prod(static_shape(moves.origin(arg), 'part'))}")
    key = call.op, tuple(starts)
    if key not in variants:
        # The name tells profiles how much of the larger tensors the function touches.
        name = "_".join([call.op.name_hint, "in", *sizes])
        variants[key] = builder.add_func(with_slices(builder.get()[call.op], tuple(starts)), name)
    numbers = [relax.prim_value(start) for start in starts.values()]
    return relax.Call(variants[key], [*args, *numbers], call.attrs, call.ty_args)


def called(mod: IRModule) -> set[GlobalVar]:
    """Every PrimFunc that a network of ``mod`` calls."""
    found = set()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, GlobalVar) and isinstance(mod[expr], tir.PrimFunc):
            found.add(expr)

    for func in mod.functions.values():
        if is_graph(func):
            relax.analysis.post_order_visit(func, visit)
    return found
