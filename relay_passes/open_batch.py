"""Turn the fixed batch of an imported network back into an open one."""

from __future__ import annotations

import math
from collections.abc import Iterable

import tvm_ffi
from tvm import relax
from tvm.ir import IRModule

from .._compat import tensor_dtype, tir
from ..errors import ShapeError
from .batch import operand
from .batch_rules import Operand, RowsMeet, known_operator, operator_name


def opened(func: relax.Function, batched: Iterable[str], name: str) -> relax.Function:
    """``func`` with a symbol for the batch in place of the number it was made with.

    Args:
        func: of static shapes, in A-normal form.
        batched: names of the inputs that begin with the batch.
        name: the symbol's name.

    Raises:
        ShapeError: a value for which the batch must be the number that it is.
    """
    return _Opening(func, frozenset(batched), name).run()


def opened_alike(one: IRModule, other: IRModule, batched: Iterable[str], name: str) -> IRModule:
    """The network that two modules are, made with different batch sizes, with an open batch.

    Args:
        one, other: with a function "main" each.
        batched, name: as for :func:`opened`.

    Raises:
        ShapeError: as :func:`opened`, or they differ in more than the batch size.
    """
    names = list(batched)
    first, second = (opened(mod["main"], names, name) for mod in (one, other))
    if not tvm_ffi.structural_equal(first, second):
        raise ShapeError("it computes with the number of rows")
    result = one.clone()
    result["main"] = first
    return result


class _Opening:
    """One walk over the bindings, whose types are inferred anew with the symbol."""

    def __init__(self, func: relax.Function, batched: frozenset[str], name: str) -> None:
        self.func, self.batched = func, batched
        self.symbol = tir.Var(name, "int64")
        self.builder = relax.BlockBuilder()
        self.values: dict[relax.Var, relax.Expr] = {}
        (self.size,) = {int(p.ty.shape.values[0]) for p in func.params if p.name in batched}

    def run(self) -> relax.Function:
        func, blocks = self.func, []
        params = [self._param(param) for param in func.params]
        self.values.update(zip(func.params, params, strict=True))
        self.builder.begin_scope(params)
        for block in func.body.blocks:
            same_kind = type(block)
            blocks.append(same_kind([self._binding(binding) for binding in block.bindings]))
        body = self.builder.normalize(relax.SeqExpr(blocks, self._renewed(func.body.body)))
        self.builder.end_scope()
        return relax.Function(params, body, body.ty, func.is_pure, func.attrs)

    def _param(self, param: relax.Var) -> relax.Var:
        if param.name not in self.batched:
            return relax.Var(param.name, param.ty)
        shape = [self.symbol, *param.ty.shape.values[1:]]
        return relax.Var(param.name, relax.TensorType(shape, tensor_dtype(param.ty)))

    def _binding(self, binding: relax.VarBinding) -> relax.VarBinding:
        try:
            value = self.builder.normalize(self._renewed(binding.value))
        except RowsMeet as error:
            name = operator_name(binding.value)
            raise ShapeError(f"{name} {error} (value {binding.var.name!r})") from error
        except Exception as error:  # of TVM's inference, for shapes that fit one batch only
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ShapeError(
                f"value {binding.var.name!r} fits a batch of {self.size} only: {reason}"
            ) from error
        var = type(binding.var)(binding.var.name, value.ty)
        self.values[binding.var] = var
        return relax.VarBinding(var, value)

    def _renewed(self, expr: relax.Expr) -> relax.Expr:
        if isinstance(expr, relax.Var):
            return self.values[expr]
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._renewed(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self._renewed(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            return self._call(expr)
        return expr

    def _call(self, call: relax.Call) -> relax.Call:
        name = known_operator(call)
        args = [self._renewed(arg) for arg in call.args]
        if name in ("relax.reshape", "relax.broadcast_to"):
            data = operand(args[0].ty, self.symbol)
            if data.axis is not None:
                target = [int(extent) for extent in args[1].values]
                place = self._place(name, data, target)
                args[1] = relax.ShapeExpr([*target[:place], self.symbol, *target[place + 1 :]])
        return relax.Call(call.op, args, call.attrs)

    def _place(self, name: str, data: Operand, target: list[int]) -> int:
        """Where the batch of ``data`` is in a shape that an operator gives its result."""
        if name == "relax.broadcast_to":
            places = [len(target) - data.from_right]
        else:
            before = math.prod(data.shape[: data.axis])
            places = [i for i in range(len(target)) if math.prod(target[:i]) == before]
        for place in places:
            if target[place] == self.size:
                return place
        raise RowsMeet(f"to {target} mixes the batch with another axis")
