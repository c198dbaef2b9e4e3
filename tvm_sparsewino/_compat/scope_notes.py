"""Suppress the notes that TVM logs for every constant when a network is saved or loaded."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# One note per constant, logged as a warning.
_NOTE = re.compile(rb"executable\.cc:\d+: Warning: Scope (Saving|Loaded):")
_stderr_lock = threading.Lock()


@contextmanager
def without_scope_notes() -> Iterator[None]:
    """Hold back what is written to the process's stderr; then pass on all but TVM's scope notes."""
    with _stderr_lock, tempfile.TemporaryFile() as held:
        try:
            stderr = os.dup(2)
        except OSError:  # closed, as in a daemon
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not _NOTE.search(line):
                    os.write(2, line)
