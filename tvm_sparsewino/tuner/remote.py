"""Time kernels on a machine that TVM's RPC tracker lends.

The kernels are compiled and linked here, so this machine needs a C++ compiler that links for the
other's operating system. The server is TVM's own: ``python -m tvm.exec.rpc_server``.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import rpc

from .._compat import export_library
from ..config import LayerPlan
from ..errors import TuneError
from ..schedules.target import CpuTarget
from .measure import Problem, build_kernel

_CONNECT_SECONDS = 5.0
_BUSY_SECONDS = 60.0
_POLL_SECONDS = 0.5
_SESSION_SECONDS = 24 * 3600  # the server ends a session that its client has left behind
_MIN_SAMPLE_MS = 2


@contextmanager
def remote_machine(
    tracker: str, key: str, target: CpuTarget, threads: int
) -> Iterator[RemoteMachine]:
    """Borrow a machine for the block.

    Args:
        tracker: the tracker's "HOST:PORT".
        key: the kind of machine, as its server registered it.
        target: what to compile for; the remote CPU must be able to run it.
        threads: threads of a call, of the remote machine.

    Raises:
        TuneError: no tracker there, no server with that key, none free for a minute, or the
            connection fails.
    """
    host, port = _address(tracker)
    with _failures(f"the tracker {tracker}"):
        _check_reachable(host, port)
        connected = rpc.connect_tracker(host, port)
        _wait_for_server(connected, tracker, key)
        session = connected.request(key, session_timeout=_SESSION_SECONDS)
        session.get_function("runtime.config_threadpool")(1, threads)
    try:
        yield RemoteMachine(session, target)
    finally:
        connected.close()


class RemoteMachine:
    """A borrowed machine; make it with :func:`remote_machine`."""

    def __init__(self, session: Any, target: CpuTarget) -> None:
        self._session, self._target = session, target
        self._count = 0
        self._problem: Problem | None = None
        self._shared: list[Any] = []

    def kernel(self, problem: Problem, plan: LayerPlan) -> RemoteKernel:
        """As :class:`tvm_sparsewino.tuner.measure.Machine`.

        Raises:
            ConfigError: there is no kernel for the plan.
            ShapeError: or none for its shape.
            TuneError: the remote machine failed.
        """
        built, name, packed = build_kernel(problem, plan, self._target)
        self._count += 1
        library = f"kernel_{self._count}.so"
        with tempfile.TemporaryDirectory() as folder, _failures("the remote machine"):
            path = Path(folder) / library
            export_library(built, str(path))
            self._session.upload(bytearray(path.read_bytes()), library)
            module = self._session.load_module(library)
            self._session.remove(library)
            device = self._session.cpu()
            if problem is not self._problem:
                self._problem = problem
                self._shared = [tvm.runtime.tensor(a, device) for a in problem.activations]
            data, bias, output = self._shared
            weights = [tvm.runtime.tensor(a, device) for a in packed]
        return RemoteKernel(module, name, device, [data, *weights, bias, output])


class RemoteKernel:
    """A kernel on another machine."""

    def __init__(self, module: Any, name: str, device: Any, tensors: list[Any]) -> None:
        self._tensors = tensors
        self._timer = module.time_evaluator(
            name, device, number=1, repeat=1, min_repeat_ms=_MIN_SAMPLE_MS
        )

    def seconds(self) -> float:
        """Run it; returns the mean of as many calls as fill two milliseconds there."""
        with _failures("the remote machine"):
            return float(self._timer(*self._tensors).mean)

    def output(self) -> np.ndarray:
        """What the last call computed."""
        with _failures("the remote machine"):
            return self._tensors[-1].numpy()


def _address(tracker: str) -> tuple[str, int]:
    host, _, port = tracker.rpartition(":")
    if not host or not port.isdigit():
        raise TuneError(f"the tracker must be HOST:PORT, got {tracker!r}")
    return host, int(port)


def _check_reachable(host: str, port: int) -> None:
    """TVM's client would try again for a minute."""
    socket.create_connection((host, port), _CONNECT_SECONDS).close()


def _wait_for_server(connected: Any, tracker: str, key: str) -> None:
    """Wait until a server is free; a request that none answers would wait for ever."""
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        summary = connected.summary()
        keys = {str(s["key"]).removeprefix("server:") for s in summary["server_info"]}
        if key not in keys:
            found = ", ".join(sorted(keys)) or "none"
            raise TuneError(
                f"the tracker {tracker} has no server with the key {key!r}; it has {found}"
            )
        if summary["queue_info"].get(key, {}).get("free"):
            return
        if time.monotonic() > end:
            raise TuneError(f"every server of {tracker} with the key {key!r} is busy")
        time.sleep(_POLL_SECONDS)


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Name ``what`` where the network or the other side fails."""
    try:
        yield
    except TuneError:
        raise
    except (OSError, RuntimeError) as error:  # TVM's RPC errors are kinds of RuntimeError
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise TuneError(f"{what}: {reason}") from error
