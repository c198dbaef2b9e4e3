"""The one family of errors that users see.

Low-level code raises a kind with the reason; public functions add the layer, shape or file with
:func:`in_context`, so that a message always names the thing that was wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SparseWinoError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(SparseWinoError, ValueError):
    """An option has a value outside of what it accepts."""


class ShapeError(SparseWinoError, ValueError):
    """A shape, dtype or geometry that does not fit."""


class WeightsError(SparseWinoError, ValueError):
    """A weights file or packed weights that cannot be trusted."""


class TargetError(SparseWinoError, ValueError):
    """A compilation target that is unknown or unusable."""


class ImportFailed(SparseWinoError, ValueError):
    """A model that cannot be brought into TVM."""


class ExportFailed(SparseWinoError, ValueError):
    """A model that cannot be written in another format."""


class ArtefactError(SparseWinoError, OSError):
    """A compiled file that is missing, damaged or not ours."""


class PruneError(SparseWinoError, ValueError):
    """A pruning request that cannot be carried out."""


class TuneError(SparseWinoError, RuntimeError):
    """A measurement that cannot be made, or records of measurements that cannot be read."""


class MissingExtra(SparseWinoError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


@contextmanager
def in_context(where: str) -> Iterator[None]:
    """Prefix the message of a :class:`SparseWinoError` raised inside with ``where``.

    The error keeps its kind; the original stays reachable as ``__cause__``.
    """
    try:
        yield
    except SparseWinoError as error:
        raise type(error)(f"{where}: {error}") from error
