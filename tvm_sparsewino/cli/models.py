"""The network that a command works on: its arguments, and how it is read."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from . import ffdnet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the target, and what the planner may do."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f'a file of torch.export.save (.pt2), an ONNX file, or "{ffdnet.FFDNET}"',
    )
    parser.add_argument(
        "--target", default="native", help='"native" (default), "llvm" or "llvm -mcpu=NAME"'
    )
    parser.add_argument(
        "--max-tile",
        type=int,
        default=4,
        choices=(2, 4, 6),
        help="largest Winograd tile for convolutions with spatial weights (default 4)",
    )
    parser.add_argument(
        "--winograd-for-dense",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run convolutions without zeros as Winograd convolutions, too (default)",
    )
    parser.add_argument(
        "--shape",
        type=_shape,
        action="append",
        default=[],
        metavar="NAME=N,C,H,W",
        help="shape of an input that an ONNX file leaves open, with a name for N if the batch is "
        "to stay open; may be repeated",
    )
    ffdnet.add_arguments(parser)


def add_batches(parser: argparse.ArgumentParser) -> None:
    """The batch sizes that there are to be kernels for."""
    parser.add_argument(
        "--batch",
        type=_sizes,
        metavar="N,N,...",
        help="batch sizes to make kernels for; the network then takes any number of rows, even if "
        "the model has a fixed batch (default for models with an open batch: 1,4,16)",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The threads of a call."""
    parser.add_argument(
        "--threads", type=int, help="threads of a call (default: TVM_NUM_THREADS or all cores)"
    )


def config(arguments: argparse.Namespace) -> Any:
    """What the planner may do, as CompileConfig."""
    from ..config import CompileConfig

    return CompileConfig(
        winograd_for_dense=arguments.winograd_for_dense, max_tile=arguments.max_tile
    )


def load(arguments: argparse.Namespace) -> Any:
    """The network as TVM's module.

    Raises:
        ConfigError: a shape is given for a file that has its own.
        ImportFailed: a file of another kind, or one that cannot be read.
    """
    from .. import driver
    from ..errors import ConfigError, ImportFailed

    suffix = Path(arguments.model).suffix
    if suffix == ".onnx":
        return driver.import_onnx(arguments.model, dict(arguments.shape))
    if arguments.shape:
        raise ConfigError(f"--shape is for .onnx files; {arguments.model!r} has its own shapes")
    if arguments.model == ffdnet.FFDNET:
        return driver.import_torch(*ffdnet.load(arguments))
    if suffix != ".pt2":
        raise ImportFailed(
            f"{arguments.model}: cannot read {suffix or 'a name without suffix'!r}; "
            f'expected a .pt2 or .onnx file or "{ffdnet.FFDNET}"'
        )
    return driver.import_exported(arguments.model)


def _shape(text: str) -> tuple[str, tuple[int | str, ...]]:
    match = re.fullmatch(r"(.+)=([1-9]\d*|[A-Za-z_]\w*)((?:,[1-9]\d*)*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected NAME=N,C,H,W, got {text!r}")
    first = int(match[2]) if match[2].isdigit() else match[2]
    return match[1], (first, *map(int, match[3].split(",")[1:]))


def _sizes(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"expected sizes such as 1,4,16, got {text!r}")
    return tuple(map(int, text.split(",")))
