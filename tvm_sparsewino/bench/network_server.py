"""Our side in a process of its own: ``python -m tvm_sparsewino.bench.network_server``.

It answers the commands of ``benchmarks/peers/serve.py`` that concern networks, so that our process
is timed and its memory is measured in the way of every other's. A model is a compiled file. Nothing
that compiles is loaded.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import host, loading
from .._version import __version__
from ..exchange import array_of
from ..executable import Executable

NAME = "tvm-sparsewino"
LONG_CALL = 0.2  # seconds after which a call has warmed itself up
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Server:
    """One network at a time."""

    def __init__(self) -> None:
        self.start = mebibytes(host.HELD)
        self.call: Callable[[], Any] | None = None

    def answer(self, do: str, **given: Any) -> dict[str, Any]:
        """Carry out one command.

        Raises:
            LookupError: an unknown command, or one that needs a network before there is one.
        """
        commands = {
            "hello": self.hello,
            "load_network": self.load_network,
            "memory": self.memory,
            "run": self.run,
            "time": self.time,
            "stop": dict,
        }
        if do not in commands:
            raise LookupError(f"unknown command {do!r}")
        return commands[do](**given)

    def hello(self) -> dict[str, Any]:
        """Who this is."""
        return {"engine": NAME, "versions": {NAME: __version__}}

    def load_network(self, model: str, inputs: str, threads: int) -> dict[str, Any]:
        """Load a compiled file and its one input; the session keeps its memory between calls."""
        self.call = None
        exe = loading.load(model, threads)
        with np.load(inputs) as file:
            self.call = bound(exe, file["x"])
        return {"settings": f"num_threads={exe.num_threads}, a session for one caller"}

    def memory(self) -> dict[str, Any]:
        """MiB when the process began to listen, and at its peak."""
        return {"start": self.start, "peak": mebibytes(host.PEAK)}

    def run(self, out: str) -> dict[str, Any]:
        """Run once and write the output."""
        output = array_of(self._loaded()())
        np.save(out, output)
        return {"shape": list(output.shape)}

    def time(self, repeats: int, seconds: float, clock: str = "wall") -> dict[str, Any]:
        """Seconds of 1 to ``repeats`` calls, for about ``seconds``, after one to warm up."""
        call, now, times = self._loaded(), CLOCKS[clock], []
        start = now()
        call()
        first = now() - start
        times = [first] if first > LONG_CALL else []
        while len(times) < repeats and (not times or sum(times) < seconds):
            start = now()
            call()
            times.append(now() - start)
        return {"seconds": times}

    def _loaded(self) -> Callable[[], Any]:
        if self.call is None:
            raise LookupError("no network is loaded")
        return self.call


def bound(exe: Executable, x: np.ndarray) -> Callable[[], Any]:
    """A call of a network with one input, which is handed over once."""
    session = exe.session(1)
    (memory,) = session.empty_inputs()
    memory[...] = x
    return lambda: session(memory)


def mebibytes(what: str) -> float | None:
    """Memory of this process; None where the system does not tell."""
    known = host.resident_bytes(what)
    return None if known is None else known / 2**20


def main() -> None:
    """Answer JSON lines until the input ends; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = Server()
    for line in sys.stdin:
        try:
            answer = server.answer(**json.loads(line))
        except Exception as error:  # whatever it is, the other side is told
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
        if not answer:
            return


if __name__ == "__main__":
    main()
