"""Winograd-domain weights on disk: compact and exact; files that do not fit are refused.

A safetensors file. Sparse coefficients are kept as one bit per coefficient plus the nonzero
values; ``docs/weights-format.md`` describes every byte.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cook_toom import canonical_points, points_to_text
from .errors import WeightsError, in_context
from .tensor_file import TensorFile, opened, parse_json, write

FORMAT = "tvm-sparsewino"
VERSION = "1"
WINOGRAD = "winograd"
DENSE = "dense"
# Entry of a layer that counts negative transformed inputs as zero; true where it is there.
RELU = "winograd_relu"

# Larger tiles are useless in float32; the limit keeps a hostile header from costing time.
MAX_ALPHA = 32


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The weights of one layer, as they are kept on disk; checked when made.

    Make them with :meth:`winograd` and :meth:`dense`.

    Attributes:
        name: the layer's name in the model.
        kind: "winograd" or "dense".
        m, r: outputs per tile and filter taps per dimension (0 when dense).
        points: canonical points of F(m, r) as exact text, infinity last (empty when dense).
        u: canonical, unscaled coefficients, float32 [alpha^2, K, C/groups] (None when dense).
        weight: an ordinary weight, float32, of any shape that begins with K (None when Winograd).
        bias: float32 [K], or None.
        relu: whether the layer counts negative transformed inputs as zero (Winograd only).

    Raises:
        WeightsError: a name, kind, tile, shape or dtype that does not fit, or NaN or infinity.
    """

    name: str
    kind: str
    m: int = 0
    r: int = 0
    points: tuple[str, ...] = ()
    u: np.ndarray | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    relu: bool = False

    @classmethod
    def winograd(
        cls,
        name: str,
        m: int,
        r: int,
        u: np.ndarray,
        bias: np.ndarray | None = None,
        relu: bool = False,
    ) -> LayerWeights:
        """Winograd-domain weights ``u`` of F(m, r) at the canonical points."""
        with in_context(f"layer {name!r}"):
            points = _points(m, r)
        return cls(name, WINOGRAD, m, r, points, u=u, bias=bias, relu=relu)

    @classmethod
    def dense(cls, name: str, weight: np.ndarray, bias: np.ndarray | None = None) -> LayerWeights:
        """An ordinary ``weight``, for layers that stay as they are."""
        return cls(name, DENSE, weight=weight, bias=bias)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name and self.name.isprintable()):
            raise WeightsError(f"a layer's name must be printable text, got {self.name!r}")
        with in_context(f"layer {self.name!r}"):
            if self.kind == WINOGRAD:
                _check_winograd(self)
            elif self.kind == DENSE:
                _check_array(self.weight, "weight")
            else:
                raise WeightsError(f"kind must be {WINOGRAD!r} or {DENSE!r}, got {self.kind!r}")
            if self.bias is not None:
                channels = self.u.shape[1] if self.kind == WINOGRAD else self.weight.shape[0]
                _check_array(self.bias, "bias", (channels,))

    @property
    def sparsity(self) -> float:
        """Share of exact zeros among the coefficients (or of the weight when dense)."""
        values = self.u if self.kind == WINOGRAD else self.weight
        return float(1 - np.count_nonzero(values) / values.size)


def save_weights(path: str | os.PathLike[str], layers: Iterable[LayerWeights]) -> None:
    """Write ``layers`` to ``path`` in their order; the same layers give the same bytes.

    Negative zeros among the coefficients become plain zeros; everything else is kept exactly.

    Raises:
        WeightsError: two layers have one name, or the file cannot be written. An older file at
            ``path`` stays as it was.
    """
    with in_context(str(path)):
        layers = list(layers)
        _check_unique([layer.name for layer in layers])
        tensors, entries = {}, []
        for layer in layers:
            stored = _stored(layer)
            tensors.update({f"{layer.name}.{part}": array for part, array in stored.items()})
            entries.append(_entry(layer, sorted(stored)))
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "layers": json.dumps(entries, separators=(",", ":")),
        }
        try:
            write(path, tensors, metadata)
        except OSError as error:
            raise WeightsError(f"cannot be written: {error.strerror or error}") from error


def load_weights(path: str | os.PathLike[str]) -> list[LayerWeights]:
    """Read what :func:`save_weights` wrote, in the same order.

    Sizes are checked before anything is allocated: a file of B bytes gives at most 32 B bytes of
    coefficients.

    Raises:
        WeightsError: a missing or damaged file, another format or version, points that are not
            canonical, tensors that are missing, left over, of a wrong shape or dtype, or hold NaN
            or infinity. The message names the file, the layer and the tensor.
    """
    with in_context(str(path)), opened(path) as file:
        entries = _read_entries(file)
        layers = [_read_layer(file, entry) for entry in entries]
        known = {f"{e['name']}.{part}" for e in entries for part in e["stored"]}
        left_over = sorted(file.names - known)
        if left_over:
            raise WeightsError(f"tensors {left_over} belong to no layer")
        return layers


def _stored(layer: LayerWeights) -> dict[str, np.ndarray]:
    """The tensors of a layer: mask and values, or weight, and bias if there is one."""
    if layer.kind == WINOGRAD:
        nonzero = layer.u != 0
        stored = {
            "mask": np.packbits(nonzero, axis=None, bitorder="little"),
            "values": layer.u[nonzero],
        }
    else:
        stored = {"weight": layer.weight}
    return stored if layer.bias is None else {**stored, "bias": layer.bias}


def _entry(layer: LayerWeights, stored: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": layer.name, "kind": layer.kind, "stored": stored}
    if layer.kind == WINOGRAD:
        entry.update(m=layer.m, r=layer.r, points=layer.points, shape=layer.u.shape)
        if layer.relu:
            entry[RELU] = True
    return entry


def _read_entries(file: TensorFile) -> list[dict[str, Any]]:
    """The description of every layer from the metadata, with its fields checked."""
    if file.metadata.get("format") != FORMAT:
        raise WeightsError(f"format must be {FORMAT!r}, got {file.metadata.get('format')!r}")
    if file.metadata.get("version") != VERSION:
        version = file.metadata.get("version")
        raise WeightsError(f"version {version!r} cannot be read, only {VERSION!r}")
    entries = parse_json(file.metadata.get("layers", ""), "metadata 'layers'")
    if not isinstance(entries, list):
        raise WeightsError("metadata 'layers' must be a list")
    for entry in entries:
        _check_entry(entry)
    _check_unique([entry["name"] for entry in entries])
    return entries


def _check_entry(entry: Any) -> None:
    fields = {
        WINOGRAD: {"name", "kind", "stored", "m", "r", "points", "shape"},
        DENSE: {"name", "kind", "stored"},
    }
    parts = {WINOGRAD: ["mask", "values"], DENSE: ["weight"]}
    kind = entry.get("kind") if isinstance(entry, dict) else None
    relu = {RELU} if kind == WINOGRAD and entry.get(RELU) is True else set()
    if not isinstance(kind, str) or kind not in fields or set(entry) != fields[kind] | relu:
        raise WeightsError(f"metadata 'layers' holds an entry of unknown form: {entry!r:.200}")
    if not isinstance(entry["name"], str):
        raise WeightsError(f"a layer's name must be text, got {entry['name']!r:.200}")
    if entry["stored"] not in (parts[kind], ["bias", *parts[kind]]):
        raise WeightsError(
            f"layer {entry['name']!r}: stored tensors must be {parts[kind]}, with or without "
            f"'bias', got {entry['stored']!r:.200}"
        )


def _read_layer(file: TensorFile, entry: dict[str, Any]) -> LayerWeights:
    name = entry["name"]
    with in_context(f"layer {name!r}"):
        if entry["kind"] == WINOGRAD:
            u = _read_coefficients(file, entry)
            channels, made = u.shape[1], {"u": u, "m": entry["m"], "r": entry["r"]}
            made["points"], made["relu"] = tuple(entry["points"]), RELU in entry
        else:
            weight = f"{name}.weight"
            shape = file.shape(weight, "F32")
            made = {"weight": file.read(weight, "F32", shape)}
            channels = shape[0] if shape else 0
        if "bias" in entry["stored"]:
            made["bias"] = file.read(f"{name}.bias", "F32", (channels,))
    return LayerWeights(name, entry["kind"], **made)


def _read_coefficients(file: TensorFile, entry: dict[str, Any]) -> np.ndarray:
    name, shape = entry["name"], entry["shape"]
    points = _points(entry["m"], entry["r"])
    if entry["points"] != list(points):
        raise WeightsError(
            f"points of F({entry['m']},{entry['r']}) must be {list(points)}, "
            f"got {entry['points']!r:.200}"
        )
    is_shape = isinstance(shape, list) and all(type(n) is int and n >= 1 for n in shape)
    if not is_shape or len(shape) != 3 or shape[0] != (entry["m"] + entry["r"] - 1) ** 2:
        raise WeightsError(f"shape must be [alpha^2, K, C/groups], got {shape!r:.200}")
    size = math.prod(shape)
    bits = file.read(f"{name}.mask", "U8", (-(-size // 8),))
    mask = np.unpackbits(bits, bitorder="little")
    if mask[size:].any():
        raise WeightsError(f"tensor '{name}.mask' has bits behind its last coefficient")
    mask = mask[:size].astype(bool)
    values = file.read(f"{name}.values", "F32", (int(np.count_nonzero(mask)),))
    if not values.all():
        raise WeightsError(f"tensor '{name}.values' holds a zero")
    _check_finite(values, f"{name}.values")
    u = np.zeros(size, np.float32)
    u[mask] = values
    return u.reshape(shape)


def _check_winograd(layer: LayerWeights) -> None:
    if layer.points != _points(layer.m, layer.r):
        raise WeightsError(f"points {layer.points} are not canonical for F({layer.m},{layer.r})")
    _check_array(layer.u, "coefficients")
    if layer.u.ndim != 3 or layer.u.shape[0] != (layer.m + layer.r - 1) ** 2:
        raise WeightsError(
            f"coefficients of F({layer.m},{layer.r}) must have shape [alpha^2, K, C/groups], "
            f"got {layer.u.shape}"
        )


def _check_array(array: Any, what: str, shape: tuple[int, ...] | None = None) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        got = getattr(array, "dtype", type(array).__name__)
        raise WeightsError(f"{what} must be a float32 array, got {got}")
    if array.ndim == 0 or array.size == 0 or (shape is not None and array.shape != shape):
        raise WeightsError(f"{what} must have shape {shape or '[K, ...]'}, got {array.shape}")
    _check_finite(array, what)


def _check_finite(array: np.ndarray, name: str) -> None:
    if not np.isfinite(array).all():
        raise WeightsError(f"tensor {name!r} holds NaN or infinity")


def _check_unique(names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise WeightsError(f"layers {twice} appear more than once")


def _points(m: int, r: int) -> tuple[str, ...]:
    sizes_fit = type(m) is int and type(r) is int and m >= 1 and r >= 1
    if not sizes_fit or m + r - 1 > MAX_ALPHA:
        raise WeightsError(
            f"m and r must be positive with m + r - 1 <= {MAX_ALPHA}, got {m!r:.50}, {r!r:.50}"
        )
    return points_to_text(canonical_points(m, r))
