"""Write the tables of training runs and stable rates in docs/pruning.md from their kept records.

    python benchmarks/pruning_page.py

The records are what ``sparsewino train --matrix`` and ``benchmarks/training/stable_rates.py``
wrote; text outside of the marks stays as it is.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tvm_sparsewino.bench.markdown import between, markdown_table
from tvm_sparsewino.nn.experiments.matrix import read_records
from tvm_sparsewino.nn.experiments.methods import COARSE, ONE_SHOT, UNPRUNED
from tvm_sparsewino.nn.experiments.reading import build

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "pruning.md"
RECORDS = ROOT / "benchmarks" / "results" / "training"
BEGIN, END = "<!-- training runs -->\n", "<!-- end of training runs -->\n"
RATES = ROOT / "benchmarks" / "results" / "stable_rates.jsonl"
RATES_BEGIN, RATES_END = "<!-- stable rates -->\n", "<!-- end of stable rates -->\n"
# What runs of one row need not share, and what the cells of a row show.
PLACE = ("seed", "device", "data_folder", "save_every", "cost")
SHOWN = {
    *PLACE,
    *("network", "data", "dense.lr", "tune.lr", "tune.winograd_lr", "tune.distil"),
    *(f"prune.{name}" for name in ("method", "tile", "sparsity", "options", "keep", "filters")),
}
# What says nothing where all pruning comes before training.
SCHEDULE = ("prune.start", "prune.ramp", "prune.every")

# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom; beyond them the normal one.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
NORMAL = 1.960


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(), read(RECORDS), read_records(RATES)))


def read(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder; settings that are newer than a record have their defaults."""
    records = [record for path in sorted(folder.glob("*.jsonl")) for record in read_records(path)]
    for record in records:
        record["experiment"] = asdict(build(record["experiment"]))
    return records


def page(
    text: str, records: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Any]]
) -> str:
    """``text`` with the tables of ``records`` and stable ``rates`` between their marks."""
    text = between(text, RATES_BEGIN, RATES_END, "\n" + rates_table(rates) + "\n")
    return between(text, BEGIN, END, "\n" + table(records) + "\n")


def rates_table(rates: Sequence[Mapping[str, Any]]) -> str:
    """One row per method, with mean losses of the last tenth of a trial."""
    head = ("method", "largest stable rate", "loss there", "at twice the rate", "without training")
    return markdown_table(head, [_rates_row(x) for x in rates])


def _rates_row(found: Mapping[str, Any]) -> list[str]:
    still, *losses = [f"{last:.3g}" for _, _, last in found["trials"]]
    rate, stable, beyond = f"{found['rate']:.3g}", losses[-1], "not tried"
    if found["bounded"]:
        *_, stable, beyond = ("", *losses)
    else:
        rate += " or more"
    return [f"`{found['method']}`", rate, stable, beyond, still]


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """One row per network, data, method and sparsity, over its seeds."""
    head = (
        "network, data | method, tile | zeros (least layer) | seeds | dense, % | trained on, % | "
        "pruned, % | difference to dense | difference to trained on | rate, dense / pruned | "
        "time / dense training | step: time, memory / dense"
    )
    compared = {key(r): r for r in records if r["experiment"]["prune"]["method"] == "continued"}
    rows: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        if record["experiment"]["prune"]["method"] not in UNPRUNED:
            rows[kind(record)].append(record)
    ordered = [sorted(runs, key=lambda r: r["experiment"]["seed"]) for runs in rows.values()]
    ordered.sort(key=place)
    told = distinctions([runs[0]["experiment"] for runs in ordered])
    lines = [row(runs, compared, other) for runs, other in zip(ordered, told, strict=True)]
    return markdown_table(head.split(" | "), lines)


def distinctions(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Per row, the settings that its cells do not show and in which rows of its network differ."""
    settings = [unseen(e) for e in experiments]
    found: list[str] = []
    for e, own in zip(experiments, settings, strict=True):
        same = [
            other
            for x, other in zip(experiments, settings, strict=True)
            if (x["network"], x["data"]) == (e["network"], e["data"])
        ]
        differing = [n for n, v in own.items() if any(_other(x, n, v) for x in same)]
        found.append("".join(f", {name}={json.dumps(own[name])}" for name in differing))
    return found


def _other(settings: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether a row's setting is not ``value``; rows without training have none of its settings."""
    absent = value if name.startswith("tune.") or name in SCHEDULE else None
    return settings.get(name, absent) != value


def unseen(e: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, but for those that other cells show or that say nothing here."""
    flat = {}
    for name, value in e.items():
        inner = value if isinstance(value, Mapping) else None
        flat |= {name: value} if inner is None else {f"{name}.{n}": v for n, v in inner.items()}
    untrained = e["tune"]["epochs"] == 0
    hidden = SCHEDULE if e["prune"]["method"] in (ONE_SHOT, COARSE) else ()
    return {
        name: value
        for name, value in flat.items()
        if name not in (*SHOWN, *hidden) and not (untrained and name.startswith("tune."))
    }


def row(
    runs: Sequence[Mapping[str, Any]], compared: Mapping[Any, Mapping[str, Any]], other: str = ""
) -> list[str]:
    e = runs[0]["experiment"]
    dense = [r["dense"]["accuracy"] for r in runs]
    pruned = [r["accuracy"] for r in runs]
    pairs = [(r["accuracy"], compared[key(r)]["accuracy"]) for r in runs if key(r) in compared]
    zeros = [r["zeros"]["all"] for r in runs]
    least = min(share for r in runs for share in r["zeros"].values())
    rate = e["tune"]["lr"] if e["tune"]["epochs"] else None
    factor = e["tune"]["winograd_lr"]
    return [
        f"{e['network']}, {e['data']}",
        f"`{e['prune']['method']}`, {tile(e['prune']['tile'])}" + _extras(e) + other,
        f"{100 * statistics.mean(zeros):.1f} % ({100 * least:.1f})",
        ", ".join(str(r["experiment"]["seed"]) for r in runs),
        f"{statistics.mean(dense):.2f}",
        f"{statistics.mean(b for _, b in pairs):.2f}" if pairs else "",
        f"{statistics.mean(pruned):.2f}",
        interval([a - b for a, b in zip(pruned, dense, strict=True)]),
        interval([a - b for a, b in pairs]) if pairs else "",
        f"{e['dense']['lr']:g} / {rate:g}" + (f" (coefficients x{factor:g})" if factor != 1 else "")
        if rate
        else "no training",
        f"{statistics.mean(time_ratio(r) for r in runs):.2f}" if rate else "",
        cost(runs),
    ]


def interval(differences: Sequence[float]) -> str:
    """Mean and 95 % confidence interval of paired differences, in percentage points."""
    mean = statistics.mean(differences)
    count = len(differences)
    if count < 2:
        return f"{mean:+.2f}"
    quantile = T[count - 2] if count - 2 < len(T) else NORMAL
    half = quantile * statistics.stdev(differences) / count**0.5
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def cost(runs: Sequence[Mapping[str, Any]]) -> str:
    """Median over runs of what a training step takes, in units of the dense network's."""
    known = [r["cost"] for r in runs if r["cost"]]
    if not known:
        return ""
    memory = [c["memory_ratio"] for c in known if c["memory_ratio"] is not None]
    text = f"{statistics.median(c['time_ratio'] for c in known):.2f}"
    return f"{text}, {statistics.median(memory):.2f}" if memory else text


def place(runs: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    """Order of the rows: trained before untrained, then by sparsity."""
    e = runs[0]["experiment"]
    names = (e["network"], e["data"], e["prune"]["method"], str(e["prune"]["tile"]))
    return (*names, not e["tune"]["epochs"], e["prune"]["sparsity"])


def time_ratio(record: Mapping[str, Any]) -> float:
    """Pruning with fine-tuning over dense training: CPU time on CPUs."""
    clock = "cpu_seconds" if record["machine"]["device"] == "cpu" else "seconds"
    return (record["start"][clock] + record["tune"][clock]) / record["dense"][clock]


def tile(value: Any) -> str:
    """Outputs per tile; of several kernel sizes as F(m, r)."""
    if isinstance(value, dict):
        return " and ".join(f"F({m},{r})" for r, m in value.items())
    return str(value)


def _extras(e: Mapping[str, Any]) -> str:
    """Other than usual: options, layers that are not pruned, filters, distillation."""
    parts = [f"{name}={value}" for name, value in sorted(e["prune"]["options"].items())]
    parts += [f"without {name}" for name in e["prune"]["keep"]]
    if e["prune"]["filters"]:
        parts.append(f"{e['prune']['filters']:.0%} of the filters removed")
    if e["tune"]["epochs"] and e["tune"]["distil"]:
        parts.append(f"{e['tune']['distil']:.0%} distilled")
    return "".join(f", {part}" for part in parts)


def kind(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What runs of one row share: all but the seed and where they ran."""
    e = {name: value for name, value in record["experiment"].items() if name not in PLACE}
    return (json.dumps(e, sort_keys=True),)


def key(record: Mapping[str, Any]) -> str:
    """What a pruned run and the dense network trained on share: all but the pruning itself."""
    e = record["experiment"]
    names = ("network", "network_options", "data", "image_size", "seed", "batch")
    names += ("shift", "flip", "crop")
    same = {name: e[name] for name in (*names, "dense", "precision")}
    return json.dumps({**same, "epochs": e["tune"]["epochs"]}, sort_keys=True)


if __name__ == "__main__":
    main()
