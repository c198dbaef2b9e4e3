"""Let kernels write the parts of a concatenation directly into its result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relax
from tvm.ir import GlobalVar, IRModule

from .._compat import with_slices
from ..errors import ShapeError
from .allocations import Allocations, find_allocations, prim_func, rewrite_blocks
from .operators import OPAQUE
from .ops import is_call_to, static_shape

# Attribute of a function that joins its first operands into its last, one after the other.
JOINS = "sparsewino.joins"


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

        def rewrite(
            func: relax.Function, builder: relax.BlockBuilder
        ) -> list[relax.VarBinding] | None:
            moves = _find_moves(func, mod)
            return _moved(func, moves, builder) if moves.gone else None

        return rewrite_blocks(mod, rewrite)


@dataclass
class _Moves:
    """What is found in a block.

    Attributes:
        uses: how it uses tensors.
        places: part -> the tensor that it lies in, and its first element there.
        gone: concatenations that need not be computed, by number of the binding.
    """

    uses: Allocations
    places: dict[relax.Var, tuple[relax.Var, int]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)

    def join(self, number: int, call: relax.Call) -> None:
        """Place the parts that the concatenation ``call``, binding ``number``, joins."""
        *parts, result = (self.uses.origin(arg) for arg in call.args)
        distinct = len({*parts, result}) == len(call.args)
        if not distinct or not all(map(self._can_move, parts)):
            return
        whole, start = self.places.get(result, (result, 0))
        for part in parts:
            self.places[part] = whole, start
            start += math.prod(static_shape(part, "part"))
        self.gone.add(number)

    def _can_move(self, part: relax.Expr) -> bool:
        return self.uses.can_move(part) and part not in self.places


def _find_moves(func: relax.Function, mod: IRModule) -> _Moves:
    """Which parts move where; concatenations from the last to the first, outer before inner."""
    moves = _Moves(find_allocations(func, mod))
    for number, binding in reversed(list(enumerate(func.body.blocks[0].bindings))):
        kernel = prim_func(binding.value, mod)
        if kernel is not None and kernel.attrs and kernel.attrs.get(JOINS):
            moves.join(number, binding.value)
    return moves


def _moved(
    func: relax.Function, moves: _Moves, builder: relax.BlockBuilder
) -> list[relax.VarBinding]:
    """The bindings with all moves done; a whole is allocated where the first of its parts was."""
    bindings = func.body.blocks[0].bindings
    first = {whole: moves.uses.allocated[whole] for whole, _ in moves.places.values()}
    for part, (whole, _) in moves.places.items():
        first[whole] = min(first[whole], moves.uses.allocated[part])
    wholes = {number: [] for number in first.values()}
    for whole, number in first.items():
        wholes[number].append(bindings[moves.uses.allocated[whole]])
    variants: dict[tuple[GlobalVar, tuple[int, ...]], GlobalVar] = {}
    kept = []
    for number, binding in enumerate(bindings):
        kept += wholes.get(number, [])
        where = moves.uses.origin(binding.var)
        if number in moves.gone or where in moves.places or binding.var in first:
            continue
        value = binding.value
        if isinstance(value, relax.Call) and any(
            moves.uses.origin(a) in moves.places for a in value.args
        ):
            value = builder.normalize(_call_in_place(value, moves, builder, variants))
        kept.append(relax.VarBinding(binding.var, value))
    return kept


def _call_in_place(
    call: relax.Call,
    moves: _Moves,
    builder: relax.BlockBuilder,
    variants: dict[tuple[GlobalVar, tuple[int, ...]], GlobalVar],
) -> relax.Call:
    args, starts, sizes = list(call.args), {}, []
    for position, arg in enumerate(call.args):
        if moves.uses.origin(arg) in moves.places:
            args[position], starts[position] = moves.places[moves.uses.origin(arg)]
            sizes.append(f"{position}x{math.prod(static_shape(moves.uses.origin(arg), 'part'))}")
    key = call.op, tuple(starts)
    if key not in variants:
        # The name tells profiles how much of the larger tensors the function touches.
        name = "_".join([call.op.name_hint, "in", *sizes])
        variants[key] = builder.add_func(with_slices(builder.get()[call.op], tuple(starts)), name)
    numbers = [relax.prim_value(start) for start in starts.values()]
    return relax.Call(variants[key], [*args, *numbers], call.attrs, call.ty_args)
