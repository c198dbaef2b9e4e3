"""Read an ONNX file with distrust: structure and tensors apart, everything checked.

Tensors are taken out first and checked against the bytes that are there, so that nothing a file
claims can make this allocate more than the file holds. ONNX's own checker then sees a model
without its large tensors.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from ..errors import ImportFailed, in_context

# Operators have kept changing their form; older files than these are not worth the code.
MIN_OPSET = 9
MIN_IR_VERSION = 3
MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit
# Tensors up to here stay in the model: shapes, axes and the like, which shape inference reads.
SMALL = 1024

_DTYPES = {
    TensorProto.FLOAT: np.dtype("float32"),
    TensorProto.INT8: np.dtype("int8"),
    TensorProto.INT16: np.dtype("int16"),
    TensorProto.INT32: np.dtype("int32"),
    TensorProto.INT64: np.dtype("int64"),
    TensorProto.UINT8: np.dtype("uint8"),
    TensorProto.UINT16: np.dtype("uint16"),
    TensorProto.UINT32: np.dtype("uint32"),
    TensorProto.UINT64: np.dtype("uint64"),
    TensorProto.BOOL: np.dtype("bool"),
}


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A checked model.

    Attributes:
        proto: the model; tensors larger than ``SMALL`` are inputs of its graph instead.
        constants: name -> array, all initializers.
        opset: version of ONNX's own operators.
    """

    proto: onnx.ModelProto
    constants: dict[str, np.ndarray]
    opset: int

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The inputs that are no constants."""
        return [i for i in self.proto.graph.input if i.name not in self.constants]


def read(source: str | os.PathLike[str] | onnx.ModelProto) -> OnnxModel:
    """Read and check a model; one that is given stays as it is.

    Raises:
        ImportFailed: missing, not ONNX, damaged, of a version that cannot be read, or with tensors
            of a type that is not supported. Says which.
    """
    if isinstance(source, onnx.ModelProto):
        return _checked(source, None)
    path = Path(source)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImportFailed("larger than 2 GiB, so it is no ONNX file")
        return _checked(_parse(path.read_bytes()), path.parent)
    except FileNotFoundError as error:
        raise ImportFailed("there is no such file") from error
    except OSError as error:
        raise ImportFailed(f"cannot be read: {error.strerror or error}") from error


def dtype_of(elem_type: int, what: str) -> np.dtype:
    """NumPy's type for one of ONNX's.

    Raises:
        ImportFailed: a type that is not supported; names it and ``what``.
    """
    if elem_type not in _DTYPES:
        known = elem_type in TensorProto.DataType.values()
        name = TensorProto.DataType.Name(elem_type).lower() if known else f"type {elem_type}"
        raise ImportFailed(f"{what} is {name}; float32, integers and bool are supported")
    return _DTYPES[elem_type]


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ImportFailed("not an ONNX model, or a damaged one") from error


def _checked(model: onnx.ModelProto, folder: Path | None) -> OnnxModel:
    if not model.HasField("graph") or not model.graph.node:
        raise ImportFailed("not an ONNX model: it has no graph")
    if model.ir_version < MIN_IR_VERSION:
        raise ImportFailed(f"IR version {model.ir_version} cannot be read, only 3 and later")
    opset = _opset(model)
    _check_text(model)
    if model.graph.sparse_initializer:
        names = [t.values.name for t in model.graph.sparse_initializer]
        raise ImportFailed(f"sparse tensors {names} are not supported; store them as dense ones")
    constants: dict[str, np.ndarray] = {}
    for tensor in model.graph.initializer:
        if not tensor.name or tensor.name in constants:
            raise ImportFailed(f"tensor {tensor.name!r} has no name, or that of another")
        with in_context(f"tensor {tensor.name!r}"):
            constants[tensor.name] = _array(tensor, folder)
    small = _without_tensors(model, constants)
    _check(small)
    return OnnxModel(small, constants, opset)


def _check(model: onnx.ModelProto) -> None:
    """Let onnx check ``model``; that inputs and outputs need a shape is not asked here."""
    shaped = onnx.ModelProto()
    shaped.CopyFrom(model)
    for value in (*shaped.graph.input, *shaped.graph.output):
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(shaped)
    except Exception as error:  # of the checker: ValidationError, ValueError, RuntimeError, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImportFailed(f"not a valid ONNX model: {reason}") from error


def _check_text(model: onnx.ModelProto) -> None:
    """Refuse names that are no UTF-8; protobuf hands them out as bytes."""
    graph = model.graph
    for node in chain(graph.node, *(function.node for function in model.functions)):
        attributes = [attribute.name for attribute in node.attribute]
        names = [node.name, node.domain, node.op_type, *node.input, *node.output, *attributes]
        if not all(isinstance(name, str) for name in names):
            raise ImportFailed(f"damaged: a node {node.name!r:.50} has names that are no text")
    for item in (*graph.initializer, *graph.input, *graph.output):
        if not isinstance(item.name, str):
            raise ImportFailed(f"damaged: a value's name {item.name!r:.50} is no text")


def _opset(model: onnx.ModelProto) -> int:
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not MIN_OPSET <= versions[0] <= newest:
        found = " and ".join(map(str, versions)) or "none"
        raise ImportFailed(f"opset {found} cannot be read, only {MIN_OPSET} to {newest}")
    return versions[0]


def _without_tensors(model: onnx.ModelProto, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of ``model`` whose graph takes its large constants as inputs."""
    result, graph = onnx.ModelProto(), onnx.GraphProto()
    _copy_fields(model, result, leave_out="graph")
    _copy_fields(model.graph, graph, leave_out="initializer")
    declared = {i.name for i in graph.input}
    for name, array in constants.items():
        if array.size <= SMALL:
            graph.initializer.append(numpy_helper.from_array(array, name))
        elif name not in declared:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    result.graph.CopyFrom(graph)
    return result


def _copy_fields(source: onnx.ModelProto, target: onnx.ModelProto, leave_out: str) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name == leave_out:
            continue
        if descriptor.message_type is None and not isinstance(value, str | bytes | int):
            getattr(target, descriptor.name).extend(value)
        elif isinstance(value, str | bytes | int):
            setattr(target, descriptor.name, value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, descriptor.name).CopyFrom(value)
        else:
            getattr(target, descriptor.name).extend(value)


# ---- tensors -----------------------------------------------------------------------------------


def _array(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    """The value of a tensor.

    Raises:
        ImportFailed: another type, or not exactly the bytes that its shape asks for.
    """
    dtype = dtype_of(tensor.data_type, "it")
    shape = tuple(tensor.dims)
    if any(d < 0 for d in shape) or tensor.HasField("segment"):
        raise ImportFailed(f"its shape {list(shape)} is impossible, or it is stored in segments")
    size = math.prod(shape) * dtype.itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, folder, size).view(dtype.newbyteorder("<")).reshape(shape)
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data
        if len(raw) != size:
            raise ImportFailed(f"{dtype} {list(shape)} needs {size} bytes, it has {len(raw)}")
        return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)
    stored = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
    if len(stored) != math.prod(shape):
        raise ImportFailed(f"{list(shape)} needs {math.prod(shape)} values, it has {len(stored)}")
    values = np.array(list(stored))
    if dtype.kind != "f" and not np.array_equal(values, values.astype(dtype)):
        raise ImportFailed(f"a value does not fit {dtype}")
    return values.astype(dtype).reshape(shape)


def _external(tensor: TensorProto, folder: Path | None, size: int) -> np.ndarray:
    """The bytes of a tensor that is kept in a file of its own, which must lie below ``folder``."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ImportFailed(f"its data lies in {location!r}: give the path of the model instead")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        path = (folder / location).resolve()
        inside = path.is_relative_to(folder.resolve()) and path.is_file()
    except (ValueError, OSError) as error:
        raise ImportFailed(f"its external data {entries} cannot be understood") from error
    if not location or not inside:
        raise ImportFailed(f"its data file {location!r} is missing or outside of the folder")
    if offset < 0 or length != size or offset + size > path.stat().st_size:
        raise ImportFailed(f"it needs {size} bytes, {location!r} does not have them at {offset}")
    return np.fromfile(path, np.uint8, size, offset=offset)
