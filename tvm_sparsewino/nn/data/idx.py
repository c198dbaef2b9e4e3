"""The idx files that MNIST and its relatives come in."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from ...errors import ShapeError, WeightsError, in_context
from .source import ArraySource

_UINT8 = 8
_PARTS = {True: "train", False: "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """The array in an idx file of bytes, plain or compressed by gzip.

    Format: two zero bytes, the type's code (8: uint8), the number of dimensions, each dimension as
    a big-endian uint32, the values in C order (http://yann.lecun.com/exdb/mnist).

    Raises:
        WeightsError: missing, damaged, or of another type.
    """
    with in_context(str(path)):
        try:
            data = path.read_bytes()
            if path.suffix == ".gz":
                data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise WeightsError(f"cannot be read: {error}") from error
        if len(data) < 4 or data[:3] != bytes((0, 0, _UINT8)):
            raise WeightsError("not an idx file of bytes")
        dimensions = data[3]
        start = 4 + 4 * dimensions
        sizes = data[4:start].ljust(4 * dimensions, b"\xff")  # of a file that ends too early
        shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
        if len(data) - start != math.prod(shape):
            raise WeightsError(f"{len(data) - start} bytes of values do not make {list(shape)}")
        return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def load_idx(folder: Path, train: bool) -> ArraySource:
    """MNIST, Fashion-MNIST or another set in the same files, anywhere below ``folder``.

    Raises:
        WeightsError: the files are missing, damaged or do not belong together.
    """
    images = read_idx(_find(folder, train, "images-idx3"))
    labels = read_idx(_find(folder, train, "labels-idx1"))
    if images.ndim != 3 or labels.ndim != 1:
        raise WeightsError(f"{folder}: images are {images.shape}, labels {labels.shape}")
    try:
        return ArraySource(
            torch.from_numpy(images[:, None].copy()), torch.from_numpy(labels.astype(np.int64)), 10
        )
    except ShapeError as error:
        raise WeightsError(f"{folder}: {error}") from error


def _find(folder: Path, train: bool, kind: str) -> Path:
    name = f"{_PARTS[train]}-{kind}-ubyte"
    for wanted in (name, name + ".gz", name.replace("-idx", ".idx")):
        found = sorted(folder.rglob(wanted))
        if found:
            return found[0]
    raise WeightsError(f"{folder} has no {name} or {name}.gz")
