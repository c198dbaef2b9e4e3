"""Linking the constants of a network into its library."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ._compat import export_library, tensor_bytes, tensor_element
from .constants import ALIGNMENT

_SOURCE = Path(__file__).with_name("cpp") / "constants.cpp"


def link(built: Any, constants: Sequence[Any], path: str) -> None:
    """Write a network as a shared library that holds its constants once, ready to be mapped.

    Args:
        built: what TVM compiled.
        constants: TVM's tensors, in the order of their numbers.
        path: the library.

    Raises:
        RuntimeError: there is no C++ compiler, or it fails.
        OSError: a file cannot be written.
    """
    if not constants:
        export_library(built, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "constants.bin").open("wb") as file:
            for tensor in constants:
                file.write(tensor_bytes(tensor))
                file.write(bytes(-file.tell() % ALIGNMENT))
        (Path(folder) / "constants.inc").write_text("\n".join(_table(constants)) + "\n")
        export_library(built, path, [str(_SOURCE)], folder)


def _table(constants: Sequence[Any]) -> Iterator[str]:
    """What ``constants.cpp`` needs to know of every constant."""
    extents = [int(extent) for tensor in constants for extent in tensor.shape]
    yield f"SHAPES({', '.join(map(str, extents or [0]))})"
    first_byte = first_extent = 0
    for tensor in constants:
        kind, bits = tensor_element(tensor)
        dimensions = len(tensor.shape)
        yield f"CONSTANT({first_byte}, {first_extent}, {dimensions}, {kind}, {bits})"
        size = len(tensor_bytes(tensor))
        first_byte += size + -size % ALIGNMENT
        first_extent += dimensions
