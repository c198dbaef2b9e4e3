"""The inputs and outputs of a network, and the functions that it is compiled as."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tvm import relax
from tvm.ir import IRModule

from ._compat import tensor_dtype, tir
from .artefact import TensorInfo, batch_entry
from .batches import DEFAULT_SIZES, checked_sizes
from .errors import ConfigError, ShapeError
from .machines import ENTRY
from .relay_passes.batch import batch_symbol, check_rows_apart, instances
from .relay_passes.open_batch import opened

_SYMBOL = "n"  # where the module has no name for the batch


def checked_entry(mod: IRModule) -> relax.Function:
    """The function that is the network.

    Raises:
        ConfigError: there is none.
        ShapeError: it takes or gives something else than tensors of known shapes; a first dimension
            may be open.
    """
    if ENTRY not in [name.name_hint for name in mod.get_global_vars()]:
        raise ConfigError(f"the module has no function {ENTRY!r}")
    func = mod[ENTRY]
    for what, ty in _tensors(func):
        if not isinstance(ty, relax.TensorType):
            raise ShapeError(f"{what} must be a tensor, got {ty}")
        if not isinstance(ty.shape, relax.ShapeExpr):
            raise ShapeError(f"{what} has an unknown shape; every dimension must be a known number")
    batch_symbol(func)
    return func


def with_batches(
    mod: IRModule, batches: Iterable[int] | None
) -> tuple[relax.Function, IRModule, tuple[int, ...]]:
    """The network as it is to be compiled.

    Args:
        mod: as it was imported.
        batches: sizes to make functions for; if None, one function where all shapes are known and
            the default sizes where the batch is open.

    Returns:
        the function that says what the network takes and gives; the module to compile; the batch
        sizes, none for one function of static shapes.

    Raises:
        ConfigError: no function "main", or sizes that are not different positive numbers.
        ShapeError: something else than tensors of known shapes, or rows of a batch that depend on
            each other.
    """
    func = checked_entry(mod)
    if batches is None and batch_symbol(func) is None:
        return func, mod, ()
    sizes = checked_sizes(DEFAULT_SIZES if batches is None else batches)
    mod = relax.transform.Normalize()(mod)
    func = mod[ENTRY]
    if batch_symbol(func) is None:
        func = opened(func, batched_inputs(func), _SYMBOL)
    check_rows_apart(func, batch_symbol(func))
    mod[ENTRY] = func
    return func, instances(mod, sizes, batch_entry), sizes


def signature(
    func: relax.Function,
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...], bool]:
    """Inputs and outputs of a network that :func:`with_batches` returned, and whether it returns a
    tuple.

    Raises:
        ShapeError: an output whose shape is not known.
    """
    inputs = tuple(_info(f"input {p.name!r}", p.name, p.ty) for p in func.params)
    types = _output_types(func)
    outputs = tuple(_info(f"output {i}", f"output_{i}", ty) for i, ty in enumerate(types))
    return inputs, outputs, isinstance(func.ret_ty, relax.TupleType)


def batched_inputs(func: relax.Function) -> list[str]:
    """Names of the inputs whose first dimension is the first input's.

    Args:
        func: of static shapes.

    Raises:
        ShapeError: the first input has no dimension, or there is none.
    """
    shapes = [[int(extent) for extent in param.ty.shape.values] for param in func.params]
    if not shapes or not shapes[0]:
        raise ShapeError("a network without inputs that begin with a batch has no batch sizes")
    pairs = zip(func.params, shapes, strict=True)
    return [param.name for param, shape in pairs if shape[:1] == shapes[0][:1]]


def _info(what: str, name: str, ty: relax.TensorType) -> TensorInfo:
    shape = [int(d) if isinstance(d, tir.IntImm) else str(d) for d in ty.shape.values]
    if any(isinstance(extent, str) for extent in shape[1:]):
        raise ShapeError(f"{what} has the symbolic shape {ty.shape}; only its batch may be open")
    return TensorInfo(name, tuple(shape), tensor_dtype(ty))


def _tensors(func: relax.Function) -> list[tuple[str, Any]]:
    """What messages call every input and output, and its type."""
    inputs = [(f"input {param.name!r}", param.ty) for param in func.params]
    return inputs + [(f"output {i}", ty) for i, ty in enumerate(_output_types(func))]


def _output_types(func: relax.Function) -> list[Any]:
    return list(getattr(func.ret_ty, "fields", [func.ret_ty]))
