"""What the demo measured: rows, the JSON report, the tables printed at the end."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from .. import host
from ..files import replacing
from ..thread_pool import available_cores

_PACKAGES = ("apache-tvm", "torch", "numpy", "scikit-learn", "tvm-sparsewino")


@dataclass(frozen=True)
class Quality:
    """PSNR in dB of one noisy photo and of both networks' outputs."""

    photo: str
    sigma: int
    noisy: float
    dense: float
    pruned: float


@dataclass(frozen=True)
class Timing:
    """Median milliseconds per image of alternating runs; all three compute one photo at sigma 25.

    Attributes:
        threads: threads of PyTorch and of TVM alike.
        ms_torch: the dense network in PyTorch.
        ms_dense: the dense network compiled by this package.
        ms_sparse: the pruned network compiled by this package.
    """

    threads: int
    ms_torch: float
    ms_dense: float
    ms_sparse: float

    @property
    def speedup(self) -> float:
        """How many times faster the compiled pruned network is than dense PyTorch."""
        return self.ms_torch / self.ms_sparse


@dataclass(frozen=True)
class Memory:
    """Memory in MiB of a process that runs one network: when it has started, and at its peak."""

    start: float
    peak: float

    @property
    def growth(self) -> float:
        """What building and running the network added."""
        return self.peak - self.start


@dataclass(frozen=True)
class Report:
    """Everything the demo found out.

    Attributes:
        sparsity: share of exact zeros among the coefficients of the pruned layers.
        max_rel_error: largest difference between TVM's and PyTorch's outputs of one network,
            relative to the largest value of PyTorch's output.
        psnr: quality, one row per photo and noise level.
        timing: speed, one row per number of threads.
        compile_s: seconds to compile the pruned network.
        memory: by "torch" (dense) and "compiled" (pruned); empty where the system does not tell.
    """

    sparsity: float
    max_rel_error: float
    psnr: tuple[Quality, ...]
    timing: tuple[Timing, ...]
    compile_s: float
    memory: dict[str, Memory]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with the machine and the versions of the libraries added."""
        values = dataclasses.asdict(self)
        values["timing"] = [{**dataclasses.asdict(t), "speedup": t.speedup} for t in self.timing]
        return {**values, "machine": machine(), "versions": versions()}

    def save(self, path: Path) -> None:
        """Write :meth:`to_json` to ``path``, whole or not at all."""
        with replacing(path) as beside:
            beside.write_text(json.dumps(self.to_json(), indent=2) + "\n")


def machine() -> dict[str, Any]:
    """The processor's name, the cores this process may use and the system."""
    return {
        "processor": host.processor(),
        "cores": available_cores(),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter for the figures."""
    return host.versions(_PACKAGES)


def tables(report: Report) -> Iterable[Table]:
    """Quality, speed and memory, for people."""
    yield _table(
        f"PSNR in dB, {report.sparsity:.1%} zeros",
        ("photo", "sigma", "noisy", "dense", "pruned", "difference"),
        (
            (q.photo, q.sigma, _dB(q.noisy), _dB(q.dense), _dB(q.pruned), _dB(q.pruned - q.dense))
            for q in report.psnr
        ),
    )
    yield _table(
        f"Milliseconds per image (compiled in {report.compile_s:.1f} s, "
        f"TVM and PyTorch differ by {report.max_rel_error:.1e})",
        ("threads", "PyTorch dense", "compiled dense", "compiled pruned", "speedup"),
        (
            (
                t.threads,
                *(f"{ms:.0f}" for ms in (t.ms_torch, t.ms_dense, t.ms_sparse)),
                f"{t.speedup:.2f}",
            )
            for t in report.timing
        ),
    )
    if report.memory:
        yield _table(
            "Memory in MiB",
            ("process", "started", "peak", "growth"),
            (
                (n, *(f"{x:.0f}" for x in (m.start, m.peak, m.growth)))
                for n, m in report.memory.items()
            ),
        )


def _dB(value: float) -> str:
    return f"{value:.2f}"


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*map(str, row))
    return table
