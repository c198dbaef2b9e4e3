"""Give freed memory back to the system.

glibc keeps what was freed for later, after large arrays even hundreds of megabytes of it: its
threshold for asking the system directly grows with the largest array that was freed. Importing and
compiling a network frees several times the size of its weights and needs little afterwards.
"""

from __future__ import annotations

import ctypes


def release_freed() -> None:
    """Return what this process has freed; does nothing without glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
