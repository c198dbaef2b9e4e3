"""Bind the shapes of a model's inputs to numbers; a batch may stay open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from ..errors import ImportFailed, ShapeError, in_context
from ..onnx_graph import GraphInput
from .reading import OnnxModel, dtype_of

_BATCH = "batch"  # where the model has no name for it


@dataclass(frozen=True)
class OpenBatch:
    """The first dimension that some inputs share and that has no number.

    Attributes:
        symbol: what it is called.
        inputs: names of those inputs.
    """

    symbol: str
    inputs: tuple[str, ...]


def bind_shapes(
    model: OnnxModel,
    shapes: Mapping[str, Sequence[int | str]] | None,
    batch: int | None = None,
) -> tuple[tuple[GraphInput, ...], OpenBatch | None]:
    """The inputs with known shapes; the model's own declarations are changed to them.

    A symbol such as "batch" that one shape binds is bound in every other input, too.

    Args:
        model: its inputs may have unknown dimensions.
        shapes: input name -> shape, for those that are not fully known. A first dimension that is
            to stay open may be a name.
        batch: stands for a first dimension that is open; None: it must not be.

    Returns:
        the inputs, and what ``batch`` stands for, if for anything.

    Raises:
        ShapeError: a name that is no input, a shape that does not fit, or one that stays unknown.
        ImportFailed: an input that is no tensor of a supported type.
    """
    given = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    names = [i.name for i in model.inputs]
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ShapeError(f"a shape was given for {unknown}; the inputs are {names}")
    symbols: dict[str, int] = {}
    for value in model.inputs:
        with in_context(f"input {value.name!r}"):
            _check_tensor(value)
            if value.name in given:
                _bind(value, given[value.name], symbols)
    for value in model.inputs:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = symbols[dim.dim_param]
    opened = None if batch is None else _open_batch(model.inputs, batch)
    return tuple(map(_resolved, model.inputs)), opened


def _check_tensor(value: onnx.ValueInfoProto) -> None:
    if value.type.WhichOneof("value") != "tensor_type":
        raise ImportFailed("it is no tensor")


def _bind(
    value: onnx.ValueInfoProto, shape: tuple[int | str, ...], symbols: dict[str, int]
) -> None:
    kind, declared = value.type.tensor_type, _text(value)
    numbers = shape[1:] if shape and isinstance(shape[0], str) else shape
    if not all(isinstance(d, int) and d >= 1 for d in numbers):
        raise ShapeError(
            f"a shape is made of positive numbers, or begins with a name for the batch, got {shape}"
        )
    if not kind.HasField("shape"):
        kind.shape.CopyFrom(onnx.TensorShapeProto())
        for _ in shape:
            kind.shape.dim.add()
    if len(kind.shape.dim) != len(shape):
        raise ShapeError(f"has {len(kind.shape.dim)} dimensions, got {shape}")
    for dim, size in zip(kind.shape.dim, shape, strict=True):
        if dim.HasField("dim_value") and dim.dim_value != size:
            raise ShapeError(f"has the shape {declared}, got {shape}")
        if isinstance(size, str):
            dim.dim_param = size  # a number that is known has been refused above
            continue
        if dim.dim_param and symbols.setdefault(dim.dim_param, size) != size:
            raise ShapeError(
                f"{dim.dim_param!r} is {symbols[dim.dim_param]} elsewhere, {size} in {shape}"
            )
        dim.dim_value = size


def _open_batch(inputs: Sequence[onnx.ValueInfoProto], batch: int) -> OpenBatch | None:
    """Put ``batch`` into first dimensions that are open, if that is all that is open."""
    found: dict[str, str] = {}
    for value in inputs:
        first, *others = value.type.tensor_type.shape.dim or [None]
        if first is None or first.HasField("dim_value"):
            continue
        if not all(dim.HasField("dim_value") for dim in others):
            return None
        found[value.name] = first.dim_param or (_BATCH if len(inputs) == 1 else "?")
    symbols = set(found.values())
    if not symbols:
        return None
    if len(symbols) > 1 or "?" in symbols:
        raise ShapeError(
            f"the inputs begin with sizes that are open and need not be one batch: {found}; "
            f"give their shapes"
        )
    for value in inputs:
        if value.name in found:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return OpenBatch(symbols.pop(), tuple(found))


def _resolved(value: onnx.ValueInfoProto) -> GraphInput:
    kind = value.type.tensor_type
    known = all(dim.HasField("dim_value") and dim.dim_value >= 1 for dim in kind.shape.dim)
    if not kind.HasField("shape") or not known:
        raise ShapeError(
            f"input {value.name!r} has the shape {_text(value)}; give every size, "
            f"as in {value.name}=1,3,224,224"
        )
    dtype = dtype_of(kind.elem_type, f"input {value.name!r}")
    return GraphInput(value.name, tuple(d.dim_value for d in kind.shape.dim), str(dtype))


def _text(value: onnx.ValueInfoProto) -> str:
    """Such as [batch, 3, ?, ?]."""
    if not value.type.tensor_type.HasField("shape"):
        return "[...]"
    sizes = value.type.tensor_type.shape.dim
    parts = [str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in sizes]
    return f"[{', '.join(parts)}]"
