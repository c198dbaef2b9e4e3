"""``sparsewino bench layers``: race after race, each recorded when it ends."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ..schedules.target import CpuTarget, parse_target
from ..thread_pool import use_threads
from .chain import chain_length
from .contestants import Entry, PeerEntries, Settings, our_entries, our_names
from .machine import fma_peak, machine, versions
from .peers import Peer, peer_commands
from .race import Effort, race, summary
from .records import RaceKey, add_line, check_continues, races, read_lines
from .shapes import Layer
from .stages import stage_report
from .worker import PeerFailed, Worker

_STAGE_REPEATS = 40


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        layers, batches, threads: every combination is a race.
        settings: our kernels.
        peers: who else takes part.
        folder: where the peers' environments lie.
        effort: how long a race goes on.
        out: the record; races that it holds already are not run again.
    """

    layers: Sequence[Layer]
    batches: Sequence[int]
    threads: Sequence[int]
    settings: Settings
    peers: Sequence[Peer]
    folder: Path
    effort: Effort
    out: Path

    def races(self) -> list[RaceKey]:
        """All races, those with the first batch and number of threads first."""
        combinations = product(self.batches, self.threads, self.layers)
        return [RaceKey(layer, batch, threads) for batch, threads, layer in combinations]


def run_layers(request: Request, say: Callable[[str], None]) -> None:
    """Run every race that the record does not hold yet.

    Raises:
        ConfigError: the record does not fit this run, a peer has no environment, or TVM has
            fewer threads.
        SparseWinoError: one of our kernels gives a wrong answer.
    """
    use_threads(max(request.threads))  # TVM's pool cannot grow later
    target = parse_target("native")
    commands = peer_commands(request.peers, request.folder)
    lines = read_lines(request.out) if request.out.exists() else []
    described = machine(target)
    run: dict[str, Any] = {
        "kind": "run",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "seed": request.settings.seed,
        "clock": request.effort.clock,
        "structure": request.settings.structure,
        "effort": asdict(request.effort),
        "processor": described["processor"],
        "machine": described,
        "versions": versions(),
    }
    check_continues(lines, run, request.out)
    missing = _missing(request, races(lines), target)
    say(f"{len(missing)} of {len(request.races())} races to run")
    if not missing:
        return
    with ExitStack() as stack:
        workers = _Workers(commands)
        stack.callback(workers.close)
        peak = fma_peak(target)
        add_line(request.out, {**run, "peak_gflops": peak / 1e9, "peers": workers.versions()})
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number, key in enumerate(missing, 1):
            start = time.perf_counter()
            workers.revive()
            peers = PeerEntries(request.peers, workers.running, folder)
            line = _run_race(key, request, target, peak, peers)
            add_line(request.out, line)
            took = time.perf_counter() - start
            setup = line["setup_seconds"]
            say(f"{number}/{len(missing)} {key}: {took:.0f} s, setup {setup:.0f}{_failures(line)}")


def _missing(
    request: Request, done: dict[RaceKey, dict[str, Any]], target: CpuTarget
) -> list[RaceKey]:
    """The races that the record does not hold with everyone who is to take part."""
    peers = {peer.name for peer in request.peers}

    def holds(key: RaceKey) -> bool:
        shape = key.layer.conv(key.batch)
        wanted = peers | set(our_names(shape, request.settings, target))
        line = done.get(key, {"results": [], "failed": {}})
        return wanted <= {r["name"] for r in line["results"]} | set(line["failed"])

    return [key for key in request.races() if not holds(key)]


def _run_race(
    key: RaceKey, request: Request, target: CpuTarget, peak: float, peers: PeerEntries
) -> dict[str, Any]:
    shape, start, load = key.layer.conv(key.batch), time.perf_counter(), os.getloadavg()[0]
    entries, failed = peers.entries(shape, key.threads, request.settings.seed)
    entries += our_entries(shape, request.settings, target, key.threads)
    contestants = {entry.name: entry.contestant for entry in entries}
    setup = time.perf_counter() - start
    rounds, stopped = race(contestants, key.threads, request.effort)
    length = chain_length(shape)
    results = [
        {"name": entry.name, **summary(rounds[entry.name], length), **entry.facts}
        for entry in entries
        if entry.name in rounds
    ]
    if (key.batch, key.threads) == (1, 1):
        _add_stages(results, entries, target, peak)
    return {
        "kind": "race",
        "layer": asdict(key.layer),
        "batch": key.batch,
        "threads": key.threads,
        "chain": length,
        "load": round(load, 2),
        "setup_seconds": round(setup, 1),
        "direct_flops": shape.direct_flops,
        "results": results,
        "failed": {**failed, **stopped},
    }


def _add_stages(
    results: list[dict[str, Any]],
    entries: Sequence[Entry],
    target: CpuTarget,
    peak: float,
) -> None:
    """Add the stages of the sparse kernel with the best tile, for every density."""
    by_name = {entry.name: entry for entry in entries}
    sparse = [r for r in results if r.get("algorithm") == "sparse_winograd"]
    for density in dict.fromkeys(r["asked_density"] for r in sparse):
        best = min((r for r in sparse if r["asked_density"] == density), key=lambda r: r["ms"])
        kernel = by_name[best["name"]].contestant
        if kernel.plan.structure == "unstructured":
            best["stages"] = stage_report(
                kernel.plan,
                kernel.packed[0],
                kernel.single,
                best["nonzeros"],
                target,
                peak,
                _STAGE_REPEATS,
            )


def _failures(line: dict[str, Any]) -> str:
    return "".join(f"; {name}: {why}" for name, why in line["failed"].items())


class _Workers:
    """The peers' processes; those that ended are started again before the next race."""

    def __init__(self, commands: dict[str, list[str]]) -> None:
        self._commands = commands
        self.running: dict[str, Worker] = {}
        try:
            self.revive()
        except PeerFailed:
            self.close()
            raise

    def revive(self) -> None:
        for name, command in self._commands.items():
            if name not in self.running or not self.running[name].alive:
                if name in self.running:
                    self.running[name].close()
                self.running[name] = Worker(name, command)

    def versions(self) -> dict[str, Any]:
        return {name: worker.ask("hello")["versions"] for name, worker in self.running.items()}

    def close(self) -> None:
        for worker in self.running.values():
            worker.close()
