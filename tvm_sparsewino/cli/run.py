"""``sparsewino run``: a compiled network on arrays from files."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from . import models

HELP = "run a compiled network on arrays"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("network", type=Path, metavar="MODEL.so")
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        required=True,
        metavar="FILE",
        help="an .npz with one array per input, by name; or an .npy if there is one input",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.npz", help="write the outputs to this file"
    )
    models.add_threads(parser)
    parser.add_argument(
        "--repeat", type=_positive, default=1, metavar="N", help="run N times, print the median"
    )


def run(arguments: argparse.Namespace) -> None:
    """Load, run, print the time and write the outputs."""
    from .. import loading

    exe = loading.load(arguments.network, arguments.threads)
    inputs = _read(arguments.input, exe.inputs)
    seconds = []
    for _ in range(arguments.repeat):
        start = time.perf_counter()
        result = exe.run(inputs)
        seconds.append(time.perf_counter() - start)
    print(f"{1e3 * statistics.median(seconds):.2f} ms, {exe.num_threads} threads")
    outputs = result if isinstance(result, tuple) else (result,)
    named = {info.name: array for info, array in zip(exe.outputs, outputs, strict=True)}
    for name, array in named.items():
        print(f"{name}: {array.dtype} {list(array.shape)}")
    if arguments.output:
        _write(arguments.output, named)


def _read(path: Path, expected: tuple[Any, ...]) -> dict[str, Any]:
    """Arrays by input name."""
    import numpy as np

    from ..errors import SparseWinoError

    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {expected[0].name: loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise SparseWinoError(f"{path}: there is no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise SparseWinoError(f"{path}: not an .npy or .npz file that can be read") from error


def _write(path: Path, arrays: dict[str, Any]) -> None:
    import numpy as np

    from ..errors import SparseWinoError
    from ..files import replacing

    try:
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise SparseWinoError(f"{path}: cannot be written: {error.strerror or error}") from error


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return int(text)
