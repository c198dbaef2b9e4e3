"""Who takes part in a race of networks: every one in a process of its own, answers checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .chain import relative_error
from .network_models import DENSE, PROGRAM, SPARSE
from .peers import PEERS, Peer
from .worker import PeerFailed, Worker

# A wrong answer is far above this: float32 through 50 layers, and Winograd's rounding.
WRONG = 1e-3
# Where PyTorch is installed, TVM loads it for its own exchange of tensors. A process that runs a
# compiled network has no use for it, and no other engine is given another one's libraries.
_START = (
    "import sys; sys.modules['torch'] = None; "
    "from tvm_sparsewino.bench.network_server import main; main()"
)
OURS = [sys.executable, "-c", _START]
# ncnn reads no ONNX; what is left reads one file each.
NETWORK_PEERS = tuple(peer for peer in PEERS if peer.environment != "ncnn")


@dataclass(frozen=True)
class Candidate:
    """Someone who is to take part.

    Attributes:
        name: as in records.
        command: of the process.
        model: the file that it reads.
        answer: what PyTorch computes for the same weights.
        facts: what the record says of it beside its times.
    """

    name: str
    command: Sequence[str]
    model: Path
    answer: np.ndarray
    facts: Mapping[str, Any]


class NetworkContestant:
    """A network loaded into a process, ready to be timed; it gave the right answer.

    Args:
        candidate: who.
        inputs: file of the input.
        threads: threads of a call.
        stack: ends the process when it closes.

    Raises:
        PeerFailed: the process ended, answered with an error, or gave a wrong answer.
    """

    settle = 0.06  # ONNX Runtime's workers spin for nearly so long

    def __init__(self, candidate: Candidate, inputs: Path, threads: int, stack: ExitStack) -> None:
        self.candidate = candidate
        self._worker = stack.enter_context(Worker(candidate.name, candidate.command))
        self.versions = self._worker.ask("hello")["versions"]
        given = {"model": str(candidate.model), "inputs": str(inputs), "threads": threads}
        self.settings = str(self._worker.ask("load_network", **given)["settings"])
        self.error = self._checked(inputs.with_name("output.npy"))

    def _checked(self, handed: Path) -> float:
        self._worker.ask("run", out=str(handed))
        output = np.load(handed)
        handed.unlink()
        want, name = self.candidate.answer, self.candidate.name
        if output.shape != want.shape:
            raise PeerFailed(f"{name!r} gave {output.shape}, expected {want.shape}")
        error = relative_error(output, want)
        if not error < WRONG:
            raise PeerFailed(f"{name!r} gave a wrong answer, error {error:.1e}")
        return error

    def seconds(self, repeats: int, limit: float, clock: str) -> list[float]:
        """Seconds of 1 to ``repeats`` calls, for about ``limit`` seconds, after one to warm up."""
        return self._worker.ask("time", repeats=repeats, seconds=limit, clock=clock)["seconds"]

    def facts(self) -> dict[str, Any]:
        """What the record says beside times; asked after them, for the peak of memory."""
        memory = self._worker.ask("memory")
        return {
            "settings": self.settings,
            "versions": self.versions,
            "error": self.error,
            "memory": {k: v and round(v, 1) for k, v in memory.items()},
            **self.candidate.facts,
        }


def peer_candidates(
    peers: Sequence[Peer],
    commands: Mapping[str, Sequence[str]],
    folder: Path,
    answers: Mapping[float, np.ndarray],
) -> list[Candidate]:
    """The peers with the files that each reads."""
    candidates = []
    for peer in peers:
        dense = PROGRAM if peer.environment == "torch" else DENSE
        model = folder / (dense if peer.density == 1 else SPARSE)
        facts = {"peer": True, "density": peer.density}
        answer = answers[peer.density]
        candidates.append(Candidate(peer.name, commands[peer.name], model, answer, facts))
    return candidates


def our_name(density: float) -> str:
    """Such as ``ours 0.1``."""
    return f"ours {density:g}"
