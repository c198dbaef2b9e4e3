"""A network for any batch size: the batch as a symbol, and instances with numbers for it.

Kernels are built for static shapes. A network whose batch is open becomes one function for each of
some sizes; calls are put together from those, so its rows must not depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax
from tvm.ir import IRModule
from tvm.relax.utils import copy_with_new_vars

from .._compat import tir
from ..errors import ConfigError, ShapeError
from .batch_rules import SHAPED, Operand, RowsMeet, batch_axis, operator_name
from .bindings import Bindings

_SYMBOL_BOUNDS = ("tir_var_lower_bound", "tir_var_upper_bound")


def batch_symbol(func: relax.Function) -> tir.Var | None:
    """The symbol that is the first dimension of some inputs; None if all shapes are numbers.

    Raises:
        ShapeError: an input with another symbol or a symbol elsewhere; names it.
    """
    symbol = None
    for param in func.params:
        shape = getattr(getattr(param.ty, "shape", None), "values", ())
        for axis, extent in enumerate(shape):
            if isinstance(extent, tir.IntImm):
                continue
            if axis or not isinstance(extent, tir.Var) or not _is_same(symbol, extent):
                raise ShapeError(
                    f"input {param.name!r} has the symbolic shape {list(shape)}; only a batch, "
                    f"one symbol for the first dimension of inputs, may stay open"
                )
            symbol = extent
    return symbol


def check_rows_apart(func: relax.Function, symbol: tir.Var) -> None:
    """Make sure that rows of the batch do not depend on each other.

    Args:
        func: in A-normal form; every output must begin with the batch.
        symbol: the batch.

    Raises:
        ShapeError: rows meet, or that cannot be excluded; names the operator and its variable.
    """
    bindings = Bindings(func)
    if sum(len(block.bindings) for block in func.body.blocks) != len(bindings.order):
        raise ShapeError("shapes that are known only when the network runs cannot be batched")
    for binding in bindings.order:
        try:
            _check(binding.value, symbol)
        except RowsMeet as error:
            raise ShapeError(
                f"{_name(binding.value)} {error} (value {binding.var.name!r}), so a batch cannot "
                f"be put together from smaller ones; give the network one static batch size"
            ) from error
    fields = getattr(func.ret_ty, "fields", [func.ret_ty])
    for number, field in enumerate(fields):
        if operand(field, symbol).axis != 0:
            raise ShapeError(f"output {number} of shape {field} does not begin with the batch")


def instances(mod: IRModule, sizes: Sequence[int], entry: Callable[[int], str]) -> IRModule:
    """A module with one function for each batch size.

    Args:
        mod: its function "main" has a symbolic batch; other functions are kept.
        sizes: of the batch.
        entry: the name of the function of a size.

    Raises:
        ConfigError: ``mod`` has a function of such a name.
    """
    func = mod["main"]
    symbol = batch_symbol(func)
    kept = {var: f for var, f in mod.functions.items() if var.name_hint != "main"}
    result = IRModule(kept, attrs=mod.attrs)
    for size in sizes:
        name = entry(size)
        if name in {var.name_hint for var in kept}:
            raise ConfigError(f"the module has a function {name!r} already")
        bound = func.bind_symbolic_vars({symbol: size}).without_attr("global_symbol")
        for bounds in _SYMBOL_BOUNDS:
            bound = bound.without_attr(bounds)
        result[name] = copy_with_new_vars(bound).with_attr("global_symbol", name)
    return result


# ---- reading types -----------------------------------------------------------------------------


def _check(value: relax.Expr, symbol: tir.Var) -> None:
    """Raise RowsMeet when ``value`` is no operator that keeps rows apart."""
    if isinstance(value, relax.If | relax.SeqExpr | relax.Function):
        raise RowsMeet("may depend on every row")
    if not isinstance(value, relax.Call):
        return
    if operator_name(value) not in SHAPED and any(map(_is_open, value.args)):
        raise RowsMeet("computes with the batch size")
    operands = [o for arg in value.args for o in _operands(arg, symbol)]
    results = [operand(field, symbol) for field in _tensors(value.ty)]
    if not results:
        raise RowsMeet("is not known to keep the rows of a batch apart")
    # Only BatchNorm has other results beside those with the batch: its statistics.
    for result in [r for r in results if r.axis is not None] or results:
        batch_axis(value, operands, result)


def _name(value: relax.Expr) -> str:
    return operator_name(value) if isinstance(value, relax.Call) else "control flow"


def _is_same(symbol: tir.Var | None, extent: tir.Var) -> bool:
    return symbol is None or extent.same_as(symbol)


def _is_open(arg: Any) -> bool:
    """Whether an argument is a shape or a number that depends on the batch size."""
    if isinstance(arg, relax.Tuple):
        return any(map(_is_open, arg.fields))
    ty = getattr(arg, "ty", None)
    if isinstance(ty, relax.ShapeType):
        return ty.values is None or not all(isinstance(v, tir.IntImm) for v in ty.values)
    if isinstance(ty, relax.TupleType):
        return not all(isinstance(field, relax.TensorType) for field in ty.fields)
    number = getattr(arg, "value", arg)  # wrapped, in 0.26
    known = isinstance(number, tir.IntImm | tir.FloatImm | int | float | str)
    return not known and not isinstance(ty, relax.TensorType)


def _operands(expr: relax.Expr, symbol: tir.Var) -> list[Operand]:
    return [operand(ty, symbol) for ty in _tensors(expr.ty)]


def _tensors(ty: Any) -> list[Any]:
    """The tensor types in a type, those of shapes and numbers left out."""
    if isinstance(ty, relax.TupleType):
        return [tensor for field in ty.fields for tensor in _tensors(field)]
    return [ty] if isinstance(ty, relax.TensorType) else []


def operand(ty: Any, symbol: tir.Var) -> Operand:
    """A tensor's type with the batch marked.

    Raises:
        RowsMeet: its extents are not all numbers or, once, the batch.
    """
    if not isinstance(getattr(ty, "shape", None), relax.ShapeExpr):
        raise RowsMeet(f"has a shape that cannot be told from {ty}")
    shape = tuple(_extent(extent, symbol) for extent in ty.shape.values)
    axes = [axis for axis, extent in enumerate(shape) if extent is None]
    if len(axes) > 1:
        raise RowsMeet(f"has the batch in several axes of {ty.shape}")
    return Operand(shape, axes[0] if axes else None)


def _extent(extent: Any, symbol: tir.Var) -> int | None:
    """A number, or None for the batch."""
    if isinstance(extent, tir.IntImm):
        return int(extent)
    if extent.same_as(symbol):
        return None
    raise RowsMeet(f"has the extent {extent}")
