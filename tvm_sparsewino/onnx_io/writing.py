"""Finish and write an ONNX model: our functions in it, checked, whole files or none."""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ..errors import ExportFailed
from .body import MIN_OPSET
from .functions import inlined, with_own_functions
from .metadata import describe
from .operator import DOMAIN, WinogradSpec, is_winograd, read_spec
from .reading import MAX_FILE_BYTES

# Tensors above this go to a second file when there is one; shapes and the like stay.
EXTERNAL_FROM = 1024
# Where tensors start in the second file; such that it can be mapped.
ALIGNMENT = 4096
# The model without its tensors is smaller than this.
_STRUCTURE = 64 << 20


def finish(model: onnx.ModelProto, inline: bool = False) -> onnx.ModelProto:
    """Give nodes of our operator their names, bodies and description, in place.

    Args:
        model: from PyTorch's exporter; what that noted about source files is removed.
        inline: put the bodies in place of the nodes, for runtimes that reject functions.

    Raises:
        ExportFailed: a node that makes no convolution, or an opset before the body's operators.
    """
    _forget_notes(model)
    opset = next(o.version for o in model.opset_import if o.domain == "")
    layers: list[tuple[str, WinogradSpec]] = []
    names: Counter[str] = Counter()
    for node in model.graph.node:
        if is_winograd(node):
            _name(node, names)
            layers.append((node.name, read_spec(node)))
    if layers and opset < MIN_OPSET:
        raise ExportFailed(f"Winograd layers need opset {MIN_OPSET} or later, got {opset}")
    if inline:
        _inline(model, dict(layers))
    else:
        with_own_functions(model, opset)
    describe(model, layers, inline)
    return model


def save(
    model: onnx.ModelProto, path: str | os.PathLike[str], external_above: int = MAX_FILE_BYTES
) -> None:
    """Write ``model``, which changes when its tensors go to a file of their own.

    Args:
        model: a finished model.
        path: the file. Tensors go to ``path`` + ".data" when the file would be too large.
        external_above: bytes; protobuf's limit is the most.

    Raises:
        ExportFailed: onnx's checker refuses the model, or the files cannot be written; files that
            were there stay as they were.
    """
    path = Path(path)
    data = path.with_name(path.name + ".data")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
            beside = Path(folder)
            external = _bytes(model) + _STRUCTURE > external_above
            if external:
                _write_tensors(model, beside / data.name)
            (beside / path.name).write_bytes(model.SerializeToString())
            _check(beside / path.name)
            if external:
                os.replace(beside / data.name, data)
            os.replace(beside / path.name, path)
    except OSError as error:
        raise ExportFailed(f"cannot be written: {error.strerror or error}") from error


def _forget_notes(model: onnx.ModelProto) -> None:
    """Remove stack traces and module paths, which name files on the exporting machine."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:]


def _name(node: onnx.NodeProto, names: Counter[str]) -> None:
    """Name a node after the layer whose coefficients it uses; later calls of it are numbered."""
    layer = node.input[1].removesuffix(".weight") if node.input[1].endswith(".weight") else ""
    layer = layer or node.name or node.output[0]
    names[layer] += 1
    node.name = layer if names[layer] == 1 else f"{layer}:{names[layer]}"


def _inline(model: onnx.ModelProto, specs: dict[str, WinogradSpec]) -> None:
    nodes = []
    for node in model.graph.node:
        nodes += inlined(node, specs[node.name]) if is_winograd(node) else [node]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    kept = [(o.domain, o.version) for o in model.opset_import if o.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*pair) for pair in kept)


def _bytes(model: onnx.ModelProto) -> int:
    """What the tensors take; protobuf cannot say it above its own limit."""
    return sum(_size(tensor) for tensor in model.graph.initializer)


def _size(tensor: TensorProto) -> int:
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _write_tensors(model: onnx.ModelProto, path: Path) -> None:
    """Move the large tensors of ``model`` to a file."""
    with path.open("wb") as file:
        for tensor in model.graph.initializer:
            if _size(tensor) < EXTERNAL_FROM or not tensor.HasField("raw_data"):
                continue
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            place = {"location": path.name, "offset": file.tell(), "length": len(tensor.raw_data)}
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in place.items():
                entry = tensor.external_data.add()
                entry.key, entry.value = key, str(value)


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # of the checker: ValidationError, InferenceError, RuntimeError, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportFailed(f"not a valid ONNX model: {reason}") from error
