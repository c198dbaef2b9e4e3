"""Everything that takes part in one race: peers in their processes, our kernels here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ConvShape, LayerPlan
from ..cost import predict
from ..errors import ConfigError, SparseWinoError
from ..planner import TILES, machine
from ..schedules.target import CpuTarget
from .chain import (
    Chain,
    checked_images,
    make_input,
    relative_error,
    spatial_answer,
    spatial_chain,
)
from .coefficients import winograd_chain
from .kernels import KernelChain, Maps, checked
from .peers import Peer
from .plans import spatial_plans, winograd_plans
from .worker import PeerChain, PeerFailed, Worker

# A wrong answer is far above this; how small errors must be per tile is judged in the report.
WRONG = 1e-3


@dataclass(frozen=True)
class Entry:
    """A contestant that gave the right answer, and what the record says of it beside its times."""

    name: str
    contestant: KernelChain | PeerChain
    facts: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What our kernels are made for.

    Attributes:
        tiles: of the Winograd kernels; none lets the cost model choose for every density.
        densities: shares of nonzero coefficients of the sparse ones.
        structure: pattern of their zeros.
        seed: of all random numbers.
    """

    tiles: tuple[int, ...]
    densities: tuple[float, ...]
    structure: str
    seed: int


def parse_tiles(texts: Sequence[str]) -> tuple[int, ...]:
    """Tiles of :class:`Settings` from "2", "4", "6", or from "best" alone.

    Raises:
        ConfigError: something else.
    """
    if list(texts) == ["best"]:
        return ()
    allowed = {str(m): m for m in TILES}
    if not texts or not set(texts) <= set(allowed):
        raise ConfigError(f"tiles must be out of 2, 4, 6, or be 'best', got {','.join(texts)!r}")
    return tuple(allowed[text] for text in dict.fromkeys(texts))


def entered(shape: ConvShape, settings: Settings, target: CpuTarget) -> dict[int, list[float]]:
    """The densities that every tile runs with."""
    densities = list(settings.densities)
    if settings.tiles:
        return {m: densities for m in settings.tiles}
    core, chosen = machine(target), {}
    for density in densities:
        costs = {
            m: predict(shape, "sparse_winograd", m, density, core, settings.structure).cycles
            for m in TILES
        }
        chosen.setdefault(min(costs, key=lambda m: costs[m]), []).append(density)
    return chosen


def our_names(shape: ConvShape, settings: Settings, target: CpuTarget) -> list[str]:
    """The names of our entries."""
    names = ["dense_direct"]
    for m, densities in entered(shape, settings, target).items():
        names.append(winograd_name("dense_winograd", m, 1.0))
        names += [winograd_name("sparse_winograd", m, d) for d in densities]
    return names


def winograd_name(algorithm: str, m: int, density: float) -> str:
    """Such as ``sparse_winograd F(4,3) 0.1``."""
    return f"{algorithm} F({m},3)" + (f" {density:g}" if algorithm == "sparse_winograd" else "")


def plan_name(plan: LayerPlan) -> str:
    """The name of the entry that runs a plan."""
    return winograd_name(plan.algorithm, plan.m, plan.density) if plan.m else plan.algorithm


def our_entries(
    shape: ConvShape, settings: Settings, target: CpuTarget, threads: int
) -> Iterator[Entry]:
    """Our kernels for a shape, checked.

    Raises:
        SparseWinoError: a kernel gives a wrong answer.
    """
    maps = Maps(shape, make_input(shape, settings.seed))
    spatial = spatial_chain(shape, 1.0, settings.seed)
    direct, choice = spatial_plans(shape, spatial.weights[0], target, threads)
    facts = {"dense_choice": plan_name(choice)}
    yield _ours("dense_direct", direct, spatial, maps, target, threads, facts)
    for m, densities in entered(shape, settings, target).items():
        # Its time does not depend on zeros, but its rounding does: without any it is largest.
        chain = winograd_chain(shape, m, 1.0, settings.seed)
        plans = winograd_plans(shape, chain.weights[0], m, target, threads)
        name = winograd_name("dense_winograd", m, 1.0)
        yield _ours(name, plans["dense_winograd"].plan, chain, maps, target, threads, {})
        for density in densities:
            chain = winograd_chain(shape, m, density, settings.seed, settings.structure)
            plans = winograd_plans(shape, chain.weights[0], m, target, threads)
            sparse = plans["sparse_winograd"]
            name = winograd_name("sparse_winograd", m, density)
            facts = {"asked_density": density, "chosen": sparse.chosen}
            yield _ours(name, sparse.plan, chain, maps, target, threads, facts)


def _ours(
    name: str,
    plan: LayerPlan,
    chain: Chain,
    maps: Maps,
    target: CpuTarget,
    threads: int,
    facts: Mapping[str, Any],
) -> Entry:
    kernel = KernelChain(plan, chain, maps, target, threads)
    error, checksum = checked(kernel, chain)
    if not error < WRONG:
        raise SparseWinoError(f"{name} of {plan.conv}: wrong answer, error {error:.1e}")
    return Entry(
        name,
        kernel,
        {
            "algorithm": plan.algorithm,
            "m": plan.m,
            "density": plan.density,
            **facts,
            "error": error,
            "checksum": checksum,
            "bytes_of_weights": kernel.packed[0].nbytes,
            "build_seconds": round(kernel.build_seconds, 3),
            "nonzeros": int(np.count_nonzero(chain.weights[0])),
            "plan": plan.to_json(),
        },
    )


class PeerEntries:
    """The peers' processes, and what each of them makes of a shape.

    Args:
        peers: who takes part.
        workers: their processes, by name.
        folder: for the files that are handed over.
    """

    def __init__(self, peers: Sequence[Peer], workers: Mapping[str, Worker], folder: Path) -> None:
        self._peers, self._workers, self._folder = peers, workers, folder

    def entries(
        self, shape: ConvShape, threads: int, seed: int
    ) -> tuple[list[Entry], dict[str, str]]:
        """The peers that gave the right answer, and why the others did not, by name."""
        made: list[Entry] = []
        failed: dict[str, str] = {}
        images = checked_images(shape.n)
        for density in dict.fromkeys(peer.density for peer in self._peers):
            chain = spatial_chain(shape, density, seed)
            path = self._folder / "chain.npz"
            chain.save(path)
            answer = spatial_answer(chain, images)
            for peer in self._peers:
                if peer.density == density:
                    try:
                        made.append(self._entry(peer, path, threads, answer, images))
                    except PeerFailed as error:
                        failed[peer.name] = " ".join(str(error).split())
            path.unlink()
        return made, failed

    def _entry(
        self, peer: Peer, path: Path, threads: int, answer: np.ndarray, images: list[int]
    ) -> Entry:
        contestant = PeerChain(self._workers[peer.name], path, threads)
        handed = self._folder / "output.npy"
        output = contestant.output(handed)
        handed.unlink()
        if output.shape[1:] != answer.shape[1:]:
            raise PeerFailed(f"peer {peer.name!r} gave {output.shape}, expected {answer.shape}")
        error = relative_error(output[images], answer)
        if not error < WRONG:
            raise PeerFailed(f"peer {peer.name!r} gave a wrong answer, error {error:.1e}")
        facts = {"settings": contestant.settings, "density": peer.density, "error": error}
        return Entry(peer.name, contestant, {"peer": True, **facts})
