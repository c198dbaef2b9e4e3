"""The networks of the benchmark, with seeded weights, and the files that its contestants read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import driver
from ..errors import ConfigError
from ..extras import require
from ..planner import weight_density

# Names of functions of nn.models, and what they are called with.
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {},
    "resnet34": {},
    "resnet50": {},
    "vgg16": {},
    "alexnet": {},
    "mobilenet_v2": {},
}
_CALIBRATION = 4  # images over which BatchNorm's statistics are taken
DENSE, SPARSE = "dense.onnx", "sparse.onnx"
PROGRAM = "dense.pt2"
INPUTS = "inputs.npz"


@dataclass(frozen=True)
class Source:
    """A network in PyTorch at the densities that take part.

    Attributes:
        name: as in :data:`NETWORKS`.
        dense: the network itself.
        native: by density, what we compile: Winograd layers pruned in their domain, others where
            they are; the network itself at density 1.
        spatial: by density, what a peer reads: every layer pruned where it is.
    """

    name: str
    dense: Any
    native: Mapping[float, Any]
    spatial: Mapping[float, Any]


def choose_networks(names: list[str]) -> list[str]:
    """The names, checked.

    Raises:
        ConfigError: an unknown name.
    """
    for name in names:
        if name not in NETWORKS:
            raise ConfigError(f"no network {name!r}; there are {', '.join(NETWORKS)}")
    return list(dict.fromkeys(names))


def make_source(
    name: str, densities: list[float], peer_densities: list[float], size: int, seed: int
) -> Source:
    """Build, seed and prune a network.

    Raises:
        MissingExtra: PyTorch is not installed.
    """
    models = require("tvm_sparsewino.nn.models", "torch")
    as_tensors = require("tvm_sparsewino.nn.inference", "torch").as_tensors
    (some,) = as_tensors(images(_CALIBRATION, size, seed))
    model = models.seed_weights(getattr(models, name)(**NETWORKS[name]), seed)
    models.settle_statistics(model, some)
    # Tiles are chosen for one image; with more of them the choice is the same or matters less.
    (one,) = as_tensors(images(1, size, seed))

    def pruned(density: float, winograd: bool) -> Any:
        few = models.prune_at_once(model, density, one, winograd=winograd)
        return models.settle_statistics(few, some)

    native = {d: pruned(d, True) if d < 1 else model for d in densities}
    spatial = {d: pruned(d, False) for d in peer_densities if d < 1}
    return Source(name, model, native, spatial)


def images(count: int, size: int, seed: int) -> np.ndarray:
    """Float32 [count, 3, size, size], a normal distribution, as images are after normalising."""
    rng = np.random.default_rng([seed, 4])
    return rng.standard_normal((count, 3, size, size), np.float32)


def write_peer_files(source: Source, x: np.ndarray, folder: Path) -> dict[float, np.ndarray]:
    """Write what peers read to ``folder``; returns PyTorch's answers by density."""
    interchange = require("tvm_sparsewino.nn.interchange", "torch")
    np.savez(folder / INPUTS, x=x)
    interchange.write_onnx(source.dense, x, folder / DENSE)
    interchange.write_program(source.dense, x, folder / PROGRAM)
    answers = {1.0: interchange.answer(source.dense, x)}
    for density, model in source.spatial.items():
        interchange.write_onnx(model, x, folder / SPARSE)
        answers[density] = interchange.answer(model, x)
    return answers


def compile_native(
    source: Source, density: float, x: np.ndarray, threads: int, path: Path
) -> tuple[np.ndarray, dict[str, Any]]:
    """Compile our network to ``path``; returns PyTorch's answer and what the record says."""
    interchange = require("tvm_sparsewino.nn.interchange", "torch")
    as_tensors = require("tvm_sparsewino.nn.inference", "torch").as_tensors
    model = source.native[density]
    start = time.perf_counter()
    mod = driver.import_torch(model, as_tensors(x))
    imported = time.perf_counter()
    exe = driver.compile(mod, num_threads=threads)
    compiled = time.perf_counter()
    exe.save(path)
    algorithms = [plan.algorithm for plan in exe.plan]
    return interchange.answer(model, x), {
        "asked_density": density,
        "import_seconds": round(imported - start, 1),
        "compile_seconds": round(compiled - imported, 1),
        "file_mib": round(path.stat().st_size / 2**20, 1),
        "predicted_mcycles": round(sum(plan.cost_cycles for plan in exe.plan) / 1e6, 2),
        "algorithms": {name: algorithms.count(name) for name in sorted(set(algorithms))},
        "density": round(_density(model), 4),
    }


def _density(model: Any) -> float:
    """Share of nonzeros among the weights of convolutions and linear layers as they run."""
    weights = require("tvm_sparsewino.nn.interchange", "torch").weight_arrays(model)
    nonzero = sum(weight_density(w) * w.size for w in weights)
    return nonzero / max(sum(w.size for w in weights), 1)
