"""Let kernels write a residual sum over the map that they add.

Where maps do not stay in the caches that halves what an addition brings along: a line is read and
written back, instead of one read, another read because it is written to, and that written back.
"""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax
from tvm.ir import GlobalVar, IRModule

from .._compat import in_memory_of
from .allocations import Allocations, find_allocations, prim_func, rewrite_blocks

# Attribute of a function that adds its last operand but one to its last, the output, and stores
# every number once, after it has read the one that it adds to it.
ADDS = "sparsewino.adds_in_place"


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

        def rewrite(
            func: relax.Function, builder: relax.BlockBuilder
        ) -> list[relax.VarBinding] | None:
            places = _places(func, mod, find_allocations(func, mod))
            return _rewritten(func, places, builder) if places else None

        return rewrite_blocks(mod, rewrite)


def _places(func: relax.Function, mod: IRModule, uses: Allocations) -> dict[relax.Var, relax.Var]:
    """Allocations of outputs that are not needed -> the allocation that each one lies in."""
    places: dict[relax.Var, relax.Var] = {}
    for number, binding in enumerate(func.body.blocks[0].bindings):
        kernel = prim_func(binding.value, mod)
        if kernel is None or not (kernel.attrs and kernel.attrs.get(ADDS)):
            continue
        args = [uses.origin(arg) for arg in binding.value.args]
        *others, added, output = (places.get(arg, arg) for arg in args)
        free = uses.can_move(added) and uses.can_move(output) and added not in {*others, output}
        if free and uses.last[added] == number:
            places[output] = added
            uses.last[added] = uses.last[output]
    return places


def _rewritten(
    func: relax.Function, places: Mapping[relax.Var, relax.Var], builder: relax.BlockBuilder
) -> list[relax.VarBinding]:
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
    return kept
