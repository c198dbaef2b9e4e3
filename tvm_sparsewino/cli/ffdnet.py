"""FFDNet by name, for the commands that take a network."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

FFDNET = "ffdnet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What these commands take beside the name."""
    group = parser.add_argument_group(f'when MODEL is "{FFDNET}"')
    group.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="pruned weights (.safetensors); the published dense ones if not given",
    )
    group.add_argument(
        "--size",
        type=_size,
        default=(640, 424),
        metavar="WxH",
        help="size of the images (default 640x424)",
    )


def load(arguments: argparse.Namespace) -> tuple[Any, tuple[Any, ...]]:
    """The network and arguments to export it with."""
    import numpy as np

    from ..extras import require

    models = require("tvm_sparsewino.nn.models", "torch")
    as_tensors = require("tvm_sparsewino.nn.inference", "torch").as_tensors
    if arguments.weights is None:
        model = models.load_ffdnet()
    else:
        weights_io = require("tvm_sparsewino.nn.weights_io", "torch")
        model = weights_io.load_into(models.FFDNet(), arguments.weights)
    width, height = arguments.size
    image = np.zeros((1, 3, height, width), np.float32)
    return model, as_tensors(image, np.zeros(1, np.float32))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}")
    return int(match[1]), int(match[2])
