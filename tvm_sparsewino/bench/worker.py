"""A peer's process, which answers commands; the protocol is in ``benchmarks/peers/serve.py``."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SparseWinoError

_LAST_WORDS = 300  # characters of what a process that ended had printed


class PeerFailed(SparseWinoError, RuntimeError):
    """A peer's process ended, or it answered with an error."""


class Worker:
    """One process; close it, or use it in a ``with`` block.

    Args:
        name: the peer's name, for messages.
        command: the process, which speaks the protocol.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._files = ExitStack()
        self._log = Path(self._files.enter_context(tempfile.TemporaryDirectory()), "log")
        try:
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=_environment(),
                )
        except OSError as error:
            self._files.close()
            raise PeerFailed(f"peer {name!r} does not start: {error}") from error

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command; returns its answer.

        Raises:
            PeerFailed: the process ended, said something else than JSON, or answered an error.
        """
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            self._process.kill()  # whatever it is doing, it no longer follows
            self._process.wait()
            raise PeerFailed(f"peer {self.name!r} ended at {do!r}: {self._last_words()}") from error
        if "error" in answer:
            raise PeerFailed(f"peer {self.name!r} failed at {do!r}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        text = " ".join(self._log.read_text(errors="replace").split())
        return text[-_LAST_WORDS:] or "it said nothing"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # a command that a dead process did not read any more
                stream.close()
        self._files.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _environment() -> dict[str, str]:
    """Ours without what limits or binds threads: a peer is told its number of threads."""
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in limits}


class PeerChain:
    """A chain loaded into a worker, ready to be timed.

    Args:
        worker: the peer.
        chain: file of the chain.
        threads: threads of a call.
    """

    settle = 0.06  # ONNX Runtime's workers spin for nearly so long

    def __init__(self, worker: Worker, chain: Path, threads: int) -> None:
        self._worker = worker
        self.settings = str(worker.ask("load", chain=str(chain), threads=threads)["settings"])

    def output(self, path: Path) -> np.ndarray:
        """Run once; returns the output as an array. ``path`` is where it is handed over."""
        self._worker.ask("run", out=str(path))
        return np.load(path)

    def seconds(self, repeats: int, limit: float, clock: str) -> list[float]:
        """Seconds of 1 to ``repeats`` calls, for about ``limit`` seconds, after one to warm up."""
        return self._worker.ask("time", repeats=repeats, seconds=limit, clock=clock)["seconds"]
