"""Write the tables of docs/performance.md from the kept record of the layers' benchmark.

    python benchmarks/performance_page.py

The record is what ``sparsewino bench layers`` wrote; text outside of the marks stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvm_sparsewino.bench import figures, records
from tvm_sparsewino.bench.figures import HEADLINE_DENSITY, best_tile, fastest_of, times
from tvm_sparsewino.bench.peers import DENSE_RIVALS, PEERS, SPARSE_RIVALS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
RECORD = ROOT / "benchmarks" / "results" / "layers.jsonl"
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->\n"
STATISTIC = "ms"  # the median


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(), RECORD))


def page(text: str, record: Path) -> str:
    """``text`` with the tables of ``record`` between its marks."""
    races = records.races(records.read_lines(record))
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    places = sorted({(key.batch, key.threads) for key in races})
    tables = [table(races, batch, threads) for batch, threads in places]
    return before + BEGIN + "\n".join([conditions(races), *tables]) + END + after


def conditions(races: Mapping[Any, Any]) -> str:
    """What it was measured on, in a sentence."""
    run = next(iter(races.values()))["run"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(run["versions"].items()))
    return (
        f"{run['processor']}; multiply-add peak of a core {run['peak_gflops']:.0f} GFLOP/s; "
        f"{versions}; seed {run['seed']}.\n"
    )


def table(races: Mapping[Any, Any], batch: int, threads: int) -> str:
    """Markdown of one batch and number of threads."""
    names = [peer.name for peer in PEERS]
    head = ["layer", *names, "ours, dense", "ours, 90 % zeros", "x dense", "x DeepSparse"]
    lines = [f"**Batch {batch}, {threads} thread{'s' * (threads > 1)}**, ms per convolution", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for key, race in races.items():
        if (key.batch, key.threads) == (batch, threads):
            lines.append("| " + " | ".join([str(key.layer), *_cells(race, names)]) + " |")
    summary = figures.summarise(races, STATISTIC)[f"batch {batch}, threads {threads}"]
    for name in ("over the fastest dense peer", "over DeepSparse"):
        ratio = summary[name]
        layer, least = ratio["least"]
        text = f"{ratio['geomean']:.2f}x in the geometric mean, at least {least:.2f}x ({layer})"
        lines += ["", f"{name[0].upper()}{name[1:]}: {text}."]
    return "\n".join(lines) + "\n"


def _cells(race: Mapping[str, Any], names: list[str]) -> list[str]:
    known = times(race, STATISTIC)
    cells = [f"{known[name]:.2f}" if name in known else "" for name in names]
    dense = [value for name, value in known.items() if name.startswith("dense_")]
    m, best = best_tile(race, HEADLINE_DENSITY, STATISTIC)
    cells += [f"{min(dense):.2f}" if dense else "", f"{best:.3f} F({m},3)"]
    for rivals in (DENSE_RIVALS, SPARSE_RIVALS):
        rival = fastest_of(race, rivals, STATISTIC)
        cells.append(f"{rival[1] / best:.1f}" if rival else "")
    return cells


if __name__ == "__main__":
    main()
