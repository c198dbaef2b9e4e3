"""The page of operators beside their floors, from the record of ``network_operators.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvm_sparsewino.bench.markdown import between, markdown_table
from tvm_sparsewino.bench.profile_figures import LEAST

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operators.md"
BEGIN, END = "<!-- operators -->\n", "<!-- end of operators -->\n"

# Beginning of a kernel's name -> why such a kernel may stay far from its floor.
REASONS: Mapping[str, str] = {
    "sparse_direct": "few nonzeros per output: copies of rows, the loop around nonzeros and the "
    "stores are most of the work",
    "dense_direct": "few channels: every input is loaded again for each of few outputs",
    "sparse_winograd": "both transforms move every coefficient to memory and back, which the floor "
    "does not count",
    "dense_winograd": "both transforms move every coefficient to memory and back, which the floor "
    "does not count",
    "depthwise": "one multiply-add per load: nothing is reused but between taps",
    "sparse_linear": "one row: each nonzero loads its own input, one by one",
    "response_norm": "some twenty operations a number take longer than its bytes",
    "softmax": "exponentials, 20 operations a number, take longer than its bytes",
    "max_pool": "its input comes from the last cache, row by row",
    "resize_rows": "several shuffles per output",
}


def write(path: Path, record: Sequence[Mapping[str, Any]]) -> None:
    """Put the tables of a record between the page's marks."""
    path.write_text(page(path.read_text(), record))


def page(text: str, record: Sequence[Mapping[str, Any]]) -> str:
    """``text`` with the tables of a record between its marks."""
    return between(text, BEGIN, END, "\n".join(_content(record)) if record else "")


def summary(line: Mapping[str, Any]) -> str:
    """A network's record in a line, and one for each operator that is far from its floor."""
    head = (
        f"{line['network']}, density {line['density']:g}: {line['ms']:.2f} ms, "
        f"{len(line['operators'])} of {line['kernels']} operators above 1 %, "
        f"error {max(line['errors'].values()):.1e}, compiled in {line['compile_seconds']} s"
    )
    far = [
        f"  {row['of_floor']:4.0%} of its {row['bound']}: {_name(row)}, {row['share']:.1%}, "
        f"{row['kernel']}"
        for row in far_of(line)
    ]
    return "\n".join([head, *far])


def far_of(line: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Its operators below :data:`LEAST` of their floors, the longest first."""
    far = [row for row in line["operators"] if row["of_floor"] < LEAST]
    return sorted(far, key=lambda row: -row["ms"])


def reason(kernel: str) -> str:
    """Why a kernel may be far from its floor; "" where nothing is known."""
    return next((why for name, why in REASONS.items() if kernel.startswith(name)), "")


def _content(record: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield _conditions(record)
    yield "## Networks\n"
    yield _networks(record)
    yield f"## Below {LEAST:.0%} of the floor\n"
    yield _far(record)
    yield "## Every operator above 1 %\n"
    for line in record:
        yield f"**{line['network']}, density {line['density']:g}**, {line['ms']:.2f} ms\n"
        yield _operators(line)


def _conditions(record: Sequence[Mapping[str, Any]]) -> str:
    run = record[0]
    versions = ", ".join(f"{name} {text}" for name, text in sorted(run["versions"].items()))
    peaks = [line["limits"]["flops"] / 1e9 for line in record]
    calls = [line["limits"]["call"] * 1e6 for line in record]
    rates = [
        f"{_size(size)} {min(found):.0f} to {max(found):.0f}"
        for size in run["limits"]["copies"]
        for found in [[line["limits"]["copies"][size] / 1e9 for line in record]]
    ]
    return (
        f"{run['machine']['processor']}, one core; {versions}. While it was measured: peak "
        f"{min(peaks):.0f} to {max(peaks):.0f} GFLOP/s; copies, GB/s read and written, of "
        f"{', '.join(rates)}; a call of a kernel {min(calls):.1f} to {max(calls):.1f} us.\n"
    )


def _size(size: str) -> str:
    kib = int(size) // 1024
    return f"{kib // 1024} MiB" if kib >= 1024 else f"{kib} KiB"


def _networks(record: Sequence[Mapping[str, Any]]) -> str:
    head = ["network", "density", "ms", "kernels", "above 1 %", "below 25 %", "error against"]
    rows = []
    for line in record:
        errors = ", ".join(f"{engine} {error:.1e}" for engine, error in line["errors"].items())
        counts = (line["kernels"], len(line["operators"]), len(far_of(line)))
        rows.append(
            [
                line["network"],
                f"{line['density']:g}",
                f"{line['ms']:.2f}",
                *map(str, counts),
                errors,
            ]
        )
    return markdown_table(head, rows)


def _far(record: Sequence[Mapping[str, Any]]) -> str:
    rows, kinds = [], {}
    for line in record:
        for row in far_of(line):
            why = reason(row["kernel"])
            number = kinds.setdefault(why, len(kinds) + 1) if why else 0
            rows.append(
                [
                    f"{line['network']}, {line['density']:g}",
                    _name(row),
                    row["kernel"] if row["layer"] else "x".join(map(str, row["output"])),
                    f"{row['ms']:.3f}",
                    f"{row['share']:.1%}",
                    row["bound"],
                    f"{row['of_floor']:.0%}",
                    f"({number})" if number else "",
                ]
            )
    if not rows:
        return "None.\n"
    head = ["network", "operator", "kernel or output", "ms", "of the time", "floor of"]
    table = markdown_table([*head, "of floor", "why"], rows)
    return table + "\n" + "".join(f"({number}) {why}.\n\n" for why, number in kinds.items())


def _operators(line: Mapping[str, Any]) -> str:
    """Calls of one kernel in one row: times from the shortest to the longest, least share."""
    kernels: dict[str, list[Mapping[str, Any]]] = {}
    for row in line["operators"]:
        kernels.setdefault(row["kernel"], []).append(row)
    rows = []
    for kernel, calls in kernels.items():
        worst = min(calls, key=lambda row: row["of_floor"])
        rows.append(
            [
                ", ".join(row["layer"] for row in calls if row["layer"]),
                kernel,
                _range(row["ms"] for row in calls),
                f"{sum(row['share'] for row in calls):.1%}",
                f"{worst['floor_ms']:.4f}",
                worst["bound"],
                f"{worst['of_floor']:.0%}",
            ]
        )
    head = ["layers", "kernel", "ms", "of the time", "floor, ms", "floor of", "of floor, least"]
    return markdown_table(head, rows)


def _range(values: Iterator[float]) -> str:
    least, *_, most = sorted([*values] * 2)
    return f"{least:.3f}" if f"{least:.3f}" == f"{most:.3f}" else f"{least:.3f} to {most:.3f}"


def _name(row: Mapping[str, Any]) -> str:
    return row["layer"] or row["kernel"]
