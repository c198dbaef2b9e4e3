"""Write the tables of docs/performance*.md from the kept records of layers and networks.

    python benchmarks/performance_page.py

The records are what ``sparsewino bench layers`` and ``sparsewino bench networks`` wrote; text
outside of the marks stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvm_sparsewino.bench import figures, records
from tvm_sparsewino.bench.figures import HEADLINE_DENSITY, best_tile, fastest_of, times
from tvm_sparsewino.bench.markdown import between, markdown_table
from tvm_sparsewino.bench.network_figures import figures as network_ratios
from tvm_sparsewino.bench.network_records import network_races
from tvm_sparsewino.bench.peers import DENSE_RIVALS, PEERS, SPARSE_RIVALS

ROOT = Path(__file__).resolve().parent.parent
DOCS, RESULTS = ROOT / "docs", ROOT / "benchmarks" / "results"
PAGE, RECORD, NETWORKS = (
    DOCS / "performance.md",
    RESULTS / "layers.jsonl",
    RESULTS / "networks.jsonl",
)
WIDE = DOCS / "performance-avx512.md"
WIDE_RECORD, WIDE_NETWORKS = RESULTS / "layers_avx512.jsonl", RESULTS / "networks_avx512.jsonl"
PAGES = ((PAGE, RECORD, NETWORKS), (WIDE, WIDE_RECORD, WIDE_NETWORKS))
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->\n"
NETWORKS_BEGIN, NETWORKS_END = "<!-- networks -->\n", "<!-- end of networks -->\n"
STATISTIC = "ms"  # the median


def main() -> None:
    for written, layers, networks in PAGES:
        written.write_text(page(written.read_text(), layers, networks))


def page(text: str, layers: Path, networks: Path) -> str:
    """``text`` with the tables of both records between its marks."""
    races = records.races(records.read_lines(layers))
    places = sorted({(key.batch, key.threads) for key in races})
    tables = [table(races, batch, threads) for batch, threads in places]
    text = between(text, BEGIN, END, "\n".join([conditions(races), *tables]))
    return between(text, NETWORKS_BEGIN, NETWORKS_END, network_table(networks))


def network_table(record: Path) -> str:
    """Markdown of all networks: ms of a call, ratios, peak memory of the processes."""
    names = [peer.name for peer in PEERS if peer.name != "ncnn"] + ["ours 1", "ours 0.1"]
    head = [
        "network, batch, threads",
        *names,
        "x dense",
        "x dense, fastest calls",
        "x DeepSparse 90 %",
        "MiB, ours 0.1 / 1 / OpenVINO",
    ]
    rows = []
    for key, race in network_races(records.read_lines(record)).items():
        known = {result["name"]: result for result in race["results"]}
        cells = [f"{known[n][STATISTIC]:.1f}" if n in known else "" for n in names]
        for rival, statistic in (
            ("the fastest dense peer", STATISTIC),
            ("the fastest dense peer", "fastest"),  # what neighbours' load tells on least
            ("deepsparse-sparse90", STATISTIC),
        ):
            ratio = network_ratios(race, statistic).get(f"density 0.1 over {rival}")
            cells.append(f"{ratio:.1f}" if ratio else "")
        peaks = [
            known[n]["memory"]["peak"] for n in ("ours 0.1", "ours 1", "openvino") if n in known
        ]
        cells.append(" / ".join(f"{peak:.0f}" for peak in peaks))
        rows.append([f"{key.network}, {key.batch}, {key.threads}", *cells])
    return markdown_table(head, rows)


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
    rows = [
        [str(key.layer), *_cells(race, names)]
        for key, race in races.items()
        if (key.batch, key.threads) == (batch, threads)
    ]
    lines = []
    summary = figures.summarise(races, STATISTIC)[f"batch {batch}, threads {threads}"]
    for name in ("over the fastest dense peer", "over DeepSparse"):
        ratio = summary[name]
        layer, least = ratio["least"]
        text = f"{ratio['geomean']:.2f}x in the geometric mean, at least {least:.2f}x ({layer})"
        lines += ["", f"{name[0].upper()}{name[1:]}: {text}."]
    title = f"**Batch {batch}, {threads} thread{'s' * (threads > 1)}**, ms per convolution\n\n"
    return title + markdown_table(head, rows) + "\n".join(lines) + "\n"


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
