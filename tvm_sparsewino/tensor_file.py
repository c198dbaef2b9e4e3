"""Safetensors files, written with the same bytes every time and read with distrust.

The safetensors library checks the layout of a file (sizes, offsets, no holes) but keeps the last
of two tensors or metadata entries with one name, and writes metadata in random order. This module
adds what is missing and reports every failure as a :class:`WeightsError`.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from .errors import WeightsError
from .files import replacing

# A network of a thousand layers has a header well below 1 MiB.
MAX_HEADER_BYTES = 16 << 20

_METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")
_DTYPES = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Write float32 and uint8 ``tensors`` and ``metadata`` to ``path``, in the order given.

    float32 tensors come before uint8 ones, which keeps all of them aligned. The file appears whole
    or not at all.

    Raises:
        OSError: ``path`` cannot be written.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    offset = 0
    for name, array in ordered:
        header[name] = {
            "dtype": _NAMES[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH.size)
    with replacing(path) as beside, beside.open("wb") as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for _, array in ordered:
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


@dataclass(frozen=True)
class TensorFile:
    """An open file whose layout has been checked; tensors are read one at a time.

    Attributes:
        metadata: the strings of the header.
        names: every tensor in the file.
    """

    metadata: dict[str, str]
    names: frozenset[str]
    _handle: Any

    def shape(self, name: str, dtype: str) -> tuple[int, ...]:
        """The shape of tensor ``name``, read from the header alone.

        Raises:
            WeightsError: there is no such tensor, or it is not of ``dtype`` ("F32" or "U8").
        """
        if name not in self.names:
            raise WeightsError(f"tensor {name!r} is missing")
        view = self._handle.get_slice(name)
        if view.get_dtype() != dtype:
            raise WeightsError(f"tensor {name!r} must be {dtype}, got {view.get_dtype()}")
        return tuple(view.get_shape())

    def read(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """Tensor ``name``; nothing is allocated before its dtype and shape are known to fit.

        Raises:
            WeightsError: the tensor is missing or of another dtype or shape.
        """
        actual = self.shape(name, dtype)
        if actual != shape:
            raise WeightsError(f"tensor {name!r} must have shape {shape}, got {actual}")
        return self._handle.get_tensor(name)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[TensorFile]:
    """Open a safetensors file for reading.

    Raises:
        WeightsError: the file is missing or unreadable, is no safetensors file, has a header above
            ``MAX_HEADER_BYTES``, is shorter or longer than its header says, or names a tensor or
            metadata entry twice.
    """
    try:
        _check_header(path)
        with safe_open(path, "numpy") as handle:
            names = frozenset(handle.keys())
            yield TensorFile(handle.metadata() or {}, names, handle)
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise WeightsError(f"no valid safetensors file: {error}") from error


def _check_header(path: str | os.PathLike[str]) -> None:
    """Refuse what the library lets pass."""
    with open(path, "rb") as file:
        start = file.read(_LENGTH.size)
        if len(start) < _LENGTH.size:
            raise WeightsError(f"no safetensors file: only {len(start)} bytes long")
        (length,) = _LENGTH.unpack(start)
        if length > MAX_HEADER_BYTES:
            raise WeightsError(
                f"no safetensors file, or a damaged one: header of {length} bytes, "
                f"at most {MAX_HEADER_BYTES} expected"
            )
        text = file.read(length)
    parse_json(text, "header")


def parse_json(text: bytes | str, what: str) -> Any:
    """Parse JSON in which no object may name a key twice.

    Raises:
        WeightsError: ``text`` is no JSON or repeats a key; the message begins with ``what``.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except WeightsError as error:
        raise WeightsError(f"{what}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{what} is not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise WeightsError(f"{twice} appear more than once")
    return result
