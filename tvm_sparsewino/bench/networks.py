"""``sparsewino bench networks``: whole networks beside other engines, race after race.

In a race everyone has a process of its own, and they take turns. Each race is recorded when it
ends; races that the record holds already are not run again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ..schedules.target import parse_target
from ..thread_pool import use_threads
from .machine import machine, versions
from .network_contestants import (
    OURS,
    Candidate,
    NetworkContestant,
    our_name,
    peer_candidates,
)
from .network_models import INPUTS, Source, compile_native, images, make_source, write_peer_files
from .network_records import NetworkKey, network_races
from .peers import Peer, peer_commands
from .race import Effort, race, summary
from .records import add_line, check_continues, read_lines
from .worker import PeerFailed


@dataclass(frozen=True)
class NetworkRequest:
    """What is to be measured.

    Attributes:
        networks, batches, threads: every combination is a race.
        densities: of our networks; all take part in the same race.
        size: height and width of the images.
        seed: of all random numbers.
        peers: who else takes part.
        folder: where the peers' environments lie.
        effort: how long a race goes on.
        out: the record.
    """

    networks: Sequence[str]
    batches: Sequence[int]
    threads: Sequence[int]
    densities: Sequence[float]
    size: int
    seed: int
    peers: Sequence[Peer]
    folder: Path
    effort: Effort
    out: Path

    def races(self) -> list[NetworkKey]:
        """All races, network by network, so that its files are made once per batch."""
        combinations = product(self.networks, self.batches, self.threads)
        return [NetworkKey(*combination, self.size) for combination in combinations]

    def names(self) -> set[str]:
        """Who takes part."""
        return {peer.name for peer in self.peers} | {our_name(d) for d in self.densities}


def run_networks(request: NetworkRequest, say: Callable[[str], None]) -> None:
    """Run every race that the record does not hold yet.

    Raises:
        ConfigError: the record does not fit this run, a peer has no environment, or TVM has
            fewer threads.
        MissingExtra: PyTorch is not installed.
        SparseWinoError: one of our networks gives a wrong answer, or its process fails.
    """
    use_threads(max(request.threads))  # TVM's pool cannot grow later
    commands = peer_commands(request.peers, request.folder)
    lines = read_lines(request.out) if request.out.exists() else []
    described = machine(parse_target("native"))
    run = {
        "kind": "run",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "seed": request.seed,
        "clock": request.effort.clock,
        "structure": "networks",
        "effort": asdict(request.effort),
        "processor": described["processor"],
        "machine": described,
        "versions": versions(),
    }
    check_continues(lines, run, request.out)
    missing = _missing(request, lines)
    say(f"{len(missing)} of {len(request.races())} races to run")
    if not missing:
        return
    add_line(request.out, run)
    for key, line in _lines(request, missing, commands):
        add_line(request.out, line)
        failures = "".join(f"; {name}: {why}" for name, why in line["failed"].items())
        say(f"{key}: {line['seconds']:.0f} s, setup {line['setup_seconds']:.0f}{failures}")


def _missing(request: NetworkRequest, lines: list[dict[str, Any]]) -> list[NetworkKey]:
    done, wanted = network_races(lines), request.names()

    def holds(key: NetworkKey) -> bool:
        line = done.get(key, {"results": [], "failed": {}})
        return wanted <= {r["name"] for r in line["results"]} | set(line["failed"])

    return [key for key in request.races() if not holds(key)]


def _lines(
    request: NetworkRequest, missing: list[NetworkKey], commands: dict[str, list[str]]
) -> Iterator[tuple[NetworkKey, dict[str, Any]]]:
    peer_densities = sorted({peer.density for peer in request.peers})
    source: Source | None = None
    for name, batch in dict.fromkeys((key.network, key.batch) for key in missing):
        start = time.perf_counter()
        if source is None or source.name != name:
            source = None  # before the next is made, not to hold two
            source = make_source(
                name, list(request.densities), peer_densities, request.size, request.seed
            )
        x = images(batch, request.size, request.seed)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            answers = write_peer_files(source, x, folder)
            peers = peer_candidates(request.peers, commands, folder, answers)
            for key in missing:
                if (key.network, key.batch) == (name, batch):
                    ours = [
                        _ours(source, density, x, key.threads, folder)
                        for density in request.densities
                    ]
                    yield key, _race(key, [*peers, *ours], folder, request.effort, start)
                    start = time.perf_counter()


def _ours(source: Source, density: float, x: Any, threads: int, folder: Path) -> Candidate:
    path = folder / f"density_{density:g}.so"
    answer, facts = compile_native(source, density, x, threads, path)
    return Candidate(our_name(density), OURS, path, answer, facts)


def _race(
    key: NetworkKey, candidates: list[Candidate], folder: Path, effort: Effort, start: float
) -> dict[str, Any]:
    load, failed = os.getloadavg()[0], {}
    with ExitStack() as stack:
        made: dict[str, NetworkContestant] = {}
        for candidate in candidates:
            try:
                made[candidate.name] = NetworkContestant(
                    candidate, folder / INPUTS, key.threads, stack
                )
            except PeerFailed as error:
                if candidate.command is OURS:
                    raise
                failed[candidate.name] = " ".join(str(error).split())
        setup = time.perf_counter() - start
        rounds, stopped = race(made, key.threads, effort)
        results = [
            {"name": name, **summary(calls, 1), **made[name].facts()}
            for name, calls in rounds.items()
        ]
    return {
        "kind": "network",
        **asdict(key),
        "load": round(load, 2),
        "setup_seconds": round(setup, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "results": results,
        "failed": {**failed, **stopped},
    }
