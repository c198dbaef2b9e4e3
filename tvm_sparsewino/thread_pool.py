"""How many threads TVM's kernels use in the calling thread.

TVM keeps one pool of workers per calling thread. It is as large as TVM_NUM_THREADS says when TVM
first needs it there (half of the cores if unset) and cannot grow later; and TVM binds the calling
thread to cores of its own choice, which moves a process away from those it was given.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ._compat import configure_thread_pool
from .errors import ConfigError

_THREADS = "TVM_NUM_THREADS"
_BIND = "TVM_BIND_THREADS"

# What this module last asked TVM for, per calling thread, as TVM's pools are.
_current = threading.local()


def default_threads() -> int:
    """TVM_NUM_THREADS or OMP_NUM_THREADS, as TVM reads them, else the cores of this process."""
    for variable in (_THREADS, "OMP_NUM_THREADS"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return available_cores()


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def settled_threads(wanted: int | None) -> int:
    """How many threads a network shall use, and let the calling thread use that many.

    Args:
        wanted: the number; None means :func:`default_threads`, or as many as TVM's pool in this
            thread has if that was made smaller before.

    Raises:
        ConfigError: as :func:`use_threads`, for a number that is given.
    """
    if wanted is None:
        return _configure(default_threads())
    use_threads(wanted)
    return wanted


def use_threads(threads: int) -> None:
    """Let kernels that the calling thread starts use ``threads`` threads, itself included.

    Threads are not bound to cores unless the user set TVM_BIND_THREADS.

    Raises:
        ConfigError: the number is not positive, or TVM made a smaller pool in this thread before.
    """
    if not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"the number of threads must be a positive integer, got {threads!r}")
    if getattr(_current, "threads", None) == threads:
        return
    got = _configure(threads)
    if got != threads:
        raise ConfigError(
            f"{threads} threads were asked for, but TVM made its pool in this thread with {got}; "
            f"set {_THREADS}={threads} before TVM first runs"
        )


def _configure(threads: int) -> int:
    """Ask TVM for ``threads`` threads; returns how many it gives."""
    size = max(threads, available_cores())
    with _environment({_THREADS: str(size), _BIND: os.environ.get(_BIND, "0")}):
        _current.threads = configure_thread_pool(threads)
    return _current.threads


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
