"""Bind the shapes of a model's inputs to numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from ..errors import ImportFailed, ShapeError, in_context
from ..onnx_graph import GraphInput
from .reading import OnnxModel, dtype_of


def bind_shapes(
    model: OnnxModel, shapes: Mapping[str, Sequence[int]] | None
) -> tuple[GraphInput, ...]:
    """The inputs with known shapes; the model's own declarations are changed to them.

    A symbol such as "batch" that one shape binds is bound in every other input, too.

    Args:
        model: its inputs may have unknown dimensions.
        shapes: input name -> shape, for those that are not fully known.

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
    return tuple(_resolved(value, symbols) for value in model.inputs)


def _check_tensor(value: onnx.ValueInfoProto) -> None:
    if value.type.WhichOneof("value") != "tensor_type":
        raise ImportFailed("it is no tensor")


def _bind(value: onnx.ValueInfoProto, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    kind, declared = value.type.tensor_type, _text(value)
    if not all(isinstance(d, int) and d >= 1 for d in shape):
        raise ShapeError(f"a shape is made of positive numbers, got {shape}")
    if not kind.HasField("shape"):
        kind.shape.CopyFrom(onnx.TensorShapeProto())
        for _ in shape:
            kind.shape.dim.add()
    if len(kind.shape.dim) != len(shape):
        raise ShapeError(f"has {len(kind.shape.dim)} dimensions, got {shape}")
    for dim, size in zip(kind.shape.dim, shape, strict=True):
        if dim.HasField("dim_value") and dim.dim_value != size:
            raise ShapeError(f"has the shape {declared}, got {shape}")
        if dim.dim_param and symbols.setdefault(dim.dim_param, size) != size:
            raise ShapeError(
                f"{dim.dim_param!r} is {symbols[dim.dim_param]} elsewhere, {size} in {shape}"
            )
        dim.dim_value = size


def _resolved(value: onnx.ValueInfoProto, symbols: dict[str, int]) -> GraphInput:
    kind = value.type.tensor_type
    for dim in kind.shape.dim:
        if dim.dim_param in symbols:
            dim.dim_value = symbols[dim.dim_param]
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
