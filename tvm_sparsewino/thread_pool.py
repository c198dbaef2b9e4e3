"""How many threads TVM's kernels use in the calling thread.

TVM keeps one pool of workers per calling thread. It is as large as TVM_NUM_THREADS says when TVM
first needs it there (half of the cores if unset) and cannot grow later. TVM reads the variable
again at every parallel loop: one, which half of two cores is, means that no loop runs in parallel.
TVM binds the calling thread to cores of its own choice, which moves a process away from those it
was given. And a worker without work yields its core 300,000 times before it sleeps: where other
programs want that core, a process that is through takes minutes to end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ._compat import configure_thread_pool
from .errors import ConfigError

_THREADS = "TVM_NUM_THREADS"
_OMP_THREADS = "OMP_NUM_THREADS"
_BIND = "TVM_BIND_THREADS"
_SPIN = "TVM_THREAD_POOL_SPIN_COUNT"
_SPINS = "1000"  # half a millisecond on an idle core, longer than from one kernel to the next

# What this module last asked TVM for, per calling thread, as TVM's pools are.
_current = threading.local()
# What TVM_NUM_THREADS was before this module raised it, by the value it was raised to.
_before_raise: dict[str | None, str | None] = {}
# By process: held while the environment is changed, so that no thread restores another's changes.
_locks: dict[int, threading.Lock] = {}


def default_threads() -> int:
    """TVM_NUM_THREADS or OMP_NUM_THREADS, as TVM reads them, else the cores of this process."""
    value = os.environ.get(_THREADS)
    own = {_THREADS: _before_raise.get(value, value)}  # what is there now may be ours
    return _number_in({**os.environ, **own}) or available_cores()


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


def use_threads(threads: int, most: int | None = None) -> None:
    """Let kernels that the calling thread starts use ``threads`` threads, itself included.

    Threads are not bound to cores unless the user set TVM_BIND_THREADS. TVM_NUM_THREADS is raised
    in the environment of this process where TVM would otherwise run every loop serially. The thread
    that a child process begins with has lost its workers in the fork, if there were any: it uses
    itself alone, other threads of the child as many as they are told.

    Args:
        threads: how many.
        most: how many there are to be in TVM's pool, should this be the thread's first call; as
            many as cores, if None and not fewer than ``threads``.

    Raises:
        ConfigError: the number is not positive, or TVM made a smaller pool in this thread before.
    """
    if not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"the number of threads must be a positive integer, got {threads!r}")
    if _lost_in_fork():
        _current.threads = configure_thread_pool(1)
        return
    if getattr(_current, "threads", None) == threads:
        return
    got = _configure(threads, most)
    if got != threads:
        raise ConfigError(
            f"{threads} threads were asked for, but TVM made its pool in this thread with {got}; "
            f"set {_THREADS}={threads} before TVM first runs"
        )


def threads_in_use() -> int:
    """How many threads kernels that the calling thread starts use; one if it has not been told."""
    return getattr(_current, "threads", None) or 1


@contextmanager
def fewer_threads(threads: int) -> Iterator[None]:
    """Let kernels that the calling thread starts use ``threads`` threads within the block.

    No more than they use outside: TVM's pool is there already, so that this takes microseconds.
    """
    before = threads_in_use()
    if threads >= before:
        yield
        return
    _current.threads = configure_thread_pool(threads)
    try:
        yield
    finally:
        _current.threads = configure_thread_pool(before)


def _configure(threads: int, most: int | None = None) -> int:
    """Ask TVM for ``threads`` threads; returns how many it gives."""
    size = max(threads, available_cores() if most is None else most)
    # One lock per process: a child may be forked while another thread holds its parent's.
    with _locks.setdefault(os.getpid(), threading.Lock()):
        os.environ.setdefault(_SPIN, _SPINS)  # for good: workers read it when they start
        with _environment({_THREADS: str(size), _BIND: os.environ.get(_BIND, "0")}):
            _current.threads = configure_thread_pool(threads)
            _current.process = os.getpid()
        serial = (_number_in(os.environ) or available_cores() // 2) <= 1
        if threads > 1 and serial:
            # For good: TVM's loops look at it whenever they run, on any thread.
            _before_raise[str(size)] = os.environ.get(_THREADS)
            os.environ[_THREADS] = str(size)
    return _current.threads


def _lost_in_fork() -> bool:
    """Whether the calling thread's pool was made before a fork that this process began with."""
    return getattr(_current, "process", None) not in (None, os.getpid())


def _number_in(environment: Mapping[str, str | None]) -> int:
    """The number of threads that the variables ask for; 0 if they do not."""
    for variable in (_THREADS, _OMP_THREADS):
        value = environment.get(variable) or ""
        if value.isdigit() and int(value) > 0:
            return int(value)
    return 0


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
