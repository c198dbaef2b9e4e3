"""Weights of convolutions and PReLUs from ncnn's pair of files, ``.param`` and ``.bin``.

The first is text: a magic number, two counts, then a line per layer: type, name, numbers of inputs
and outputs, their names, and ``key=value`` options. The second holds the weights in the order of
the layers. A convolution's (option 0: output channels, 5: has a bias, 6: number of weights) begin
with a tag that says how they are stored; bias and PReLU's slopes have none. Described in ncnn's
wiki, "param and model file structure" and "operation param weight table".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import WeightsError

_MAGIC = "7767517"
_FLOAT32 = 0
_FLOAT16 = 0x01306B47
_ALIGNMENT = 4  # bytes; arrays of float16 are padded to it
_WITHOUT_WEIGHTS = ("Input", "Split", "PixelShuffle", "Interp", "BinaryOp", "ReLU")


def read_ncnn(param: Path, binary: Path) -> list[list[tuple[str, Tensor]]]:
    """Names ("weight", "bias") and float32 values, flat, of every layer that has weights.

    Raises:
        WeightsError: files that are missing, cut off or too long, layers of another kind, or
            weights stored in another way.
    """
    try:
        text, data = param.read_text(), binary.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot be read: {error}") from error
    lines = text.splitlines()
    if not lines or lines[0].strip() != _MAGIC:
        raise WeightsError("no description of a network in ncnn's text form")
    reader, layers = _Reader(data), []
    for line in lines[2:]:
        words = line.split()
        if len(words) < 4:
            continue
        kind, name = words[:2]
        try:
            options = dict(word.split("=", 1) for word in words if "=" in word)
            if kind == "Convolution":
                layers.append(_convolution(reader, options))
            elif kind == "PReLU":
                layers.append([("weight", reader.floats(int(options["0"])))])
            elif kind not in _WITHOUT_WEIGHTS:
                raise WeightsError(f"layer {name!r} is of the unknown kind {kind}")
        except (KeyError, ValueError) as error:
            if isinstance(error, WeightsError):
                raise
            raise WeightsError(f"layer {name!r} has options that do not fit: {error}") from error
    if reader.left:
        raise WeightsError(f"{binary.name} has {reader.left} bytes more than the layers take")
    return layers


def _convolution(reader: _Reader, options: dict[str, str]) -> list[tuple[str, Tensor]]:
    layer = [("weight", reader.tagged(int(options["6"])))]
    if int(options.get("5", "0")):
        layer.append(("bias", reader.floats(int(options["0"]))))
    return layer


class _Reader:
    """Takes arrays from the front of the weights."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def floats(self, count: int) -> Tensor:
        return self._array(count, np.dtype("<f4"))

    def tagged(self, count: int) -> Tensor:
        tag = int(self._take(4).view("<u4")[0])
        if tag == _FLOAT32:
            return self.floats(count)
        if tag != _FLOAT16:
            raise WeightsError(f"weights stored as {tag:#x}; float32 and float16 are known")
        values = self._array(count, np.dtype("<f2"))
        self._take(-self._at % _ALIGNMENT)
        return values

    def _array(self, count: int, dtype: np.dtype) -> Tensor:
        values = self._take(count * dtype.itemsize).view(dtype)
        return torch.from_numpy(values.astype(np.float32))

    def _take(self, size: int) -> np.ndarray:
        if size < 0 or size > self.left:
            raise WeightsError("the weights' file is cut off")
        taken = np.frombuffer(self._data, np.uint8, size, self._at)
        self._at += size
        return taken
