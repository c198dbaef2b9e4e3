"""``sparsewino runner``: what runs compiled networks on machines without Python."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "build the C++ program that runs compiled networks without Python"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "folder", type=Path, help="folder for the program and the libraries it needs"
    )


def run(arguments: argparse.Namespace) -> None:
    """Build, and say what there is."""
    from .. import native

    program = native.build(arguments.folder)
    print(f"{program} MODEL.so INPUT.npy... OUTPUT.npy...")
