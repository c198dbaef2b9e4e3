"""``sparsewino export``: an exported PyTorch program to ONNX."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import ffdnet

HELP = "write an exported PyTorch program (.pt2), or FFDNet, as ONNX"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "model", metavar="MODEL", help=f'a file of torch.export.save (.pt2), or "{ffdnet.FFDNET}"'
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.onnx")
    parser.add_argument(
        "--inline",
        action="store_true",
        help="write standard operators only, for runtimes that reject functions, such as OpenVINO",
    )
    ffdnet.add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export; print one line.

    Raises:
        ExportFailed: the output's name does not end with .onnx, or the network cannot be exported.
        ImportFailed: the network cannot be read.
    """
    from .. import driver
    from ..errors import ExportFailed

    if arguments.output.suffix != ".onnx":
        raise ExportFailed(f"{arguments.output}: the name must end with .onnx")
    model, example = _model(arguments)
    driver.export_onnx(model, example, arguments.output, inline=arguments.inline)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")


def _model(arguments: argparse.Namespace) -> tuple[Any, tuple[Any, ...]]:
    """The network and its example arguments; a program has its own."""
    from .. import driver
    from ..errors import ImportFailed

    if arguments.model == ffdnet.FFDNET:
        return ffdnet.load(arguments)
    suffix = Path(arguments.model).suffix
    if suffix != ".pt2":
        raise ImportFailed(
            f"{arguments.model}: cannot read {suffix or 'a name without suffix'!r}; "
            f'expected a .pt2 file or "{ffdnet.FFDNET}"'
        )
    return driver.read_exported(arguments.model), ()
