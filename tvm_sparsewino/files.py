"""Files that appear whole or not at all: written beside the target, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path``; rename it to ``path`` when the block ends.

    When the block raises, what it wrote is removed and a file already at ``path`` stays as it was.
    The temporary name keeps the suffix of ``path``, for writers that choose a format by it.

    Raises:
        OSError: the folder is missing or cannot be written to.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
