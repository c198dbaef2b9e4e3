"""Move the constants of a lowered module out of its code.

::

    main(x): kernel(x, const, out)
    -->
    main(x): c0 = sparsewino_constant(0); main_with_constants(x, c0)
    main_with_constants(x, c0): kernel(x, c0, out)

Whoever holds the constants calls ``main_with_constants``. A function that calls another one takes,
and hands over, what that needs. A saved file brings the packed function
``sparsewino_constant`` along, so that any virtual machine runs its ``main``.

TVM would keep constants inside of its executable. A file then holds an image of the executable,
and loading it makes a copy of that image and one of every constant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvm import relax
from tvm.ir import GlobalVar, IRModule

from .._compat import (
    constant_tensor,
    runtime_tensor,
    tensor_bytes,
    tir,
    with_constants_replaced,
)
from ..constants import ALIGNMENT, CONSTANT, Constants, forward_name


def lift_constants(mod: IRModule) -> tuple[IRModule, Constants]:
    """The module with its constants as parameters, and the constants, equal ones once.

    A module in which functions call each other in a circle stays as it is: importers make none.

    Args:
        mod: a module after the last phase of the pipeline.
    """
    functions = {v: f for v, f in mod.functions.items() if isinstance(f, relax.Function)}
    order = _callees_first(functions)
    if order is None:
        return mod, Constants()
    builder, pool = relax.BlockBuilder(mod), _Pool()
    lifted: dict[GlobalVar, _Lifted] = {}
    for var in order:
        func, name = functions[var], var.name_hint
        forward, numbers = _with_parameters(func, forward_name(name), pool, lifted)
        if numbers:
            target = builder.add_func(forward, forward_name(name))
            types = [p.ty for p in forward.params[len(func.params) :]]
            lifted[var] = _Lifted(target, dict(zip(numbers, types, strict=True)))
            builder.update_func(var, _asking(func, lifted[var]))
    used = {var.name_hint: tuple(found.types) for var, found in lifted.items()}
    return builder.get(), Constants(tuple(pool.tensors), used)


@dataclass(frozen=True)
class _Lifted:
    """A function that takes its constants as parameters: number -> type, in their order."""

    forward: GlobalVar
    types: dict[int, Any]


def _callees_first(functions: Mapping[GlobalVar, relax.Function]) -> list[GlobalVar] | None:
    """The functions by name, but each behind those that it calls; None if that cannot be."""
    calls = {var: _calls(func) & set(functions) for var, func in functions.items()}
    order: list[GlobalVar] = []
    while len(order) < len(functions):
        ready = [var for var in functions if var not in order and calls[var] <= set(order)]
        if not ready:
            return None
        order += sorted(ready, key=lambda var: var.name_hint)
    return order


class _Pool:
    """Constants by number; equal ones have one number."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def number(self, tensor: Any) -> int:
        """The number of a tensor, which is new or known."""
        content = hashlib.sha256(tensor_bytes(tensor)).digest()
        key = (str(tensor.dtype), tuple(tensor.shape), content)
        if key not in self._numbers:
            self._numbers[key] = len(self.tensors)
            aligned = tensor.data_ptr() % ALIGNMENT == 0
            self.tensors.append(tensor if aligned else runtime_tensor(tensor.numpy()))
        return self._numbers[key]


def _calls(func: relax.Function) -> set[GlobalVar]:
    """The functions that are named in a function."""
    found = set()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, GlobalVar):
            found.add(expr)

    relax.analysis.post_order_visit(func.body, visit)
    return found


def _with_parameters(
    func: relax.Function, name: str, pool: _Pool, lifted: Mapping[GlobalVar, _Lifted]
) -> tuple[relax.Function, tuple[int, ...]]:
    """The function with parameters in place of constants, its own and those of the functions that
    it calls, and the numbers of these.
    """
    parameters: dict[int, relax.Var] = {}

    def numbered(number: int, ty: Any) -> relax.Var:
        return parameters.setdefault(number, relax.Var(f"constant_{number}", ty))

    def parameter(expr: relax.Expr) -> relax.Expr:
        return numbered(pool.number(constant_tensor(expr)), expr.ty)

    def handing_over(call: relax.Call) -> relax.Call:
        if call.op not in lifted:
            return call
        callee = lifted[call.op]
        handed = [numbered(number, ty) for number, ty in callee.types.items()]
        return relax.Call(callee.forward, [*call.args, *handed], call.attrs, call.ty_args)

    body = with_constants_replaced(func.body, parameter, handing_over)
    params = [*func.params, *parameters.values()]
    forward = relax.Function(params, body, func.ret_ty, func.is_pure, func.attrs)
    return forward.with_attr("global_symbol", name), tuple(parameters)


def _asking(func: relax.Function, lifted: _Lifted) -> relax.Function:
    """The function that asks for constants and hands them over."""
    builder = relax.BlockBuilder()
    inputs = [relax.Var(p.name, p.ty) for p in func.params]
    bindings = []
    for number, ty in lifted.types.items():
        which = tir.IntImm("int64", number)
        call = relax.Call(relax.ExternFunc(CONSTANT), [which], None, [ty])
        var = relax.Var(f"constant_{number}", ty)
        bindings.append(relax.VarBinding(var, builder.normalize(call)))
    call = relax.Call(lifted.forward, [*inputs, *(binding.var for binding in bindings)])
    result = relax.Var("result", func.ret_ty)
    bindings.append(relax.VarBinding(result, builder.normalize(call)))
    body = relax.SeqExpr([relax.BindingBlock(bindings)], result)
    return relax.Function(inputs, body, func.ret_ty, func.is_pure, func.attrs)
