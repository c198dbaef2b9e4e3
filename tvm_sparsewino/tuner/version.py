"""The version of the kernels that a measurement holds for: a checksum of the code behind them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import tvm

from .. import cook_toom, schedules
from .._version import __version__

_ROOT = Path(cook_toom.__file__).parent


@cache
def kernel_version() -> str:
    """The versions of this package and of TVM, and a digest of the kernels' source.

    The digest covers schedules/, the packings, and the arithmetic of tiles and slices: a change
    there may make another plan the fastest, and needs no new version number of the package.
    """
    digest = hashlib.sha256()
    for path in kernel_sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:12]}, TVM {tvm.__version__}"


def kernel_sources() -> list[Path]:
    """The files that the digest covers, in a fixed order."""
    own = [p for name in ("geometry*.py", "packing*.py", "row_slices.py") for p in _ROOT.glob(name)]
    own += [Path(cook_toom.__file__), *Path(schedules.__file__).parent.glob("*.py")]
    return sorted(own, key=lambda path: path.name)
