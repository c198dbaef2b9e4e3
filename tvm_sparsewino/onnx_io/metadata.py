"""The metadata of files that we export, for people and for the importer's messages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import onnx
from google.protobuf.message import DecodeError

from .operator import DOMAIN, WinogradSpec

KEY = "tvm-sparsewino"
VERSION = 1


def describe(
    model: onnx.ModelProto, layers: Iterable[tuple[str, WinogradSpec]], inline: bool
) -> None:
    """Write every Winograd layer's name and algorithm into the model's metadata."""
    content = {
        "version": VERSION,
        "form": "inlined" if inline else "functions",
        "layers": [
            {
                "name": name,
                "m": spec.m,
                "r": spec.r,
                "points": list(spec.points),
                "padding": list(spec.padding),
                "groups": spec.groups,
                **({"winograd_relu": True} if spec.relu else {}),
            }
            for name, spec in layers
        ],
    }
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(content)


def inlined_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the layers that the metadata says are there as bodies; none if it is unreadable."""
    for entry in model.metadata_props:
        if entry.key == KEY:
            try:
                content = json.loads(entry.value)
                if content["version"] == VERSION and content["form"] == "inlined":
                    return [str(layer["name"]) for layer in content["layers"]]
            except (ValueError, KeyError, TypeError, RecursionError):
                return []
    return []


def has_winograd_layers(path: str | os.PathLike[str]) -> bool:
    """Whether an ONNX file names Winograd layers, as our operator or in its metadata.

    False of files that cannot be read: whoever reads them next says why.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError):
        return False
    ours = any(opset.domain == DOMAIN for opset in model.opset_import)
    return ours or bool(inlined_layers(model))
