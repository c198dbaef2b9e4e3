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
    """An option, plan or configuration has a value that is not accepted."""


class ShapeError(SparseWinoError, ValueError):
    """A shape, dtype or layout does not fit."""


class WeightsError(SparseWinoError, ValueError):
    """Weights, or a file or checkpoint of them, are damaged or do not fit."""


class TargetError(SparseWinoError, ValueError):
    """A compilation target is unknown or cannot be used."""


class ImportFailed(SparseWinoError, ValueError):
    """A model cannot be imported into TVM."""


class CompileFailed(SparseWinoError, RuntimeError):
    """TVM cannot compile a network; the message is TVM's."""


class ExportFailed(SparseWinoError, ValueError):
    """A model cannot be written in another format."""


class ArtefactError(SparseWinoError, OSError):
    """A compiled network cannot be read, written or run, or is damaged."""


class PruneError(SparseWinoError, ValueError):
    """A pruning request cannot be carried out."""


class TuneError(SparseWinoError, RuntimeError):
    """A measurement cannot be made, or records of measurements cannot be read or written."""


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
