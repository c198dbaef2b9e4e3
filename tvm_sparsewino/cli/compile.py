"""``sparsewino compile``: an exported PyTorch program to a compiled network."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

HELP = "compile an exported PyTorch program (.pt2), or FFDNet, to a shared library"
FFDNET = "ffdnet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "model", metavar="MODEL", help=f'a file of torch.export.save (.pt2), or "{FFDNET}"'
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.so")
    parser.add_argument(
        "--target", default="native", help='"native" (default), "llvm" or "llvm -mcpu=NAME"'
    )
    parser.add_argument(
        "--dump-ir", type=Path, metavar="DIR", help="write the module after every phase"
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
    ffdnet = parser.add_argument_group(f'when MODEL is "{FFDNET}"')
    ffdnet.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="pruned weights (.safetensors); the published dense ones if not given",
    )
    ffdnet.add_argument(
        "--size", type=_size, default=(640, 424), metavar="WxH", help="of images (default 640x424)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Compile and save; print one line per file written."""
    from .. import driver
    from ..config import CompileConfig

    config = CompileConfig(
        winograd_for_dense=arguments.winograd_for_dense, max_tile=arguments.max_tile
    )
    exe = driver.compile(_module(arguments), arguments.target, config, dump_dir=arguments.dump_ir)
    exe.save(arguments.output)
    ours = sum(p.algorithm != "left" for p in exe.plan)
    print(f"{arguments.output}: {ours} of {len(exe.plan)} convolutions run on our kernels")


def _module(arguments: argparse.Namespace) -> Any:
    """The network as TVM's module."""
    from .. import driver
    from ..errors import ImportFailed

    if arguments.model == FFDNET:
        return _ffdnet(arguments.weights, arguments.size)
    suffix = Path(arguments.model).suffix
    if suffix != ".pt2":
        raise ImportFailed(
            f"{arguments.model}: cannot read {suffix or 'a name without suffix'!r}; "
            f'expected a .pt2 file or "{FFDNET}"'
        )
    return driver.import_exported(arguments.model)


def _ffdnet(weights: Path | None, size: tuple[int, int]) -> Any:
    import numpy as np

    from .. import driver
    from ..extras import require

    models = require("tvm_sparsewino.nn.models", "torch")
    as_tensors = require("tvm_sparsewino.nn.inference", "torch").as_tensors
    if weights is None:
        model = models.load_ffdnet()
    else:
        weights_io = require("tvm_sparsewino.nn.weights_io", "torch")
        model = weights_io.load_into(models.FFDNet(), weights)
    width, height = size
    example = as_tensors(np.zeros((1, 3, height, width), np.float32), np.zeros(1, np.float32))
    return driver.import_torch(model, example)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}")
    return int(match[1]), int(match[2])
