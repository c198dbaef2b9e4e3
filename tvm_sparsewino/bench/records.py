"""The record: JSON lines, added to as soon as something is measured, so that a run can go on.

A line of kind "run" tells machine, versions, seed and settings of one start of the benchmark; the
lines of kind "race" after it hold what its races measured. Of races with the same layer, batch and
threads the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .shapes import Layer

VERSION = 1
# A file that is continued must have been made under these.
_SAME = ("seed", "clock", "structure", "processor")


@dataclass(frozen=True)
class RaceKey:
    """What identifies a race."""

    layer: Layer
    batch: int
    threads: int

    def __str__(self) -> str:
        return f"{self.layer} batch {self.batch} threads {self.threads}"


def add_line(path: Path, line: dict[str, Any]) -> None:
    """Append one line; it is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"version": VERSION, **line}) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a record; a last line that was cut off in writing is left out.

    Raises:
        ConfigError: the file cannot be read, or is no record of this version.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"record {path}: {error.strerror}") from error
    lines = text.split("\n")
    whole, cut = lines[:-1], lines[-1]
    try:
        parsed = [json.loads(line) for line in whole]
        versions = {line.get("version") for line in parsed}
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"record {path}: not the JSON lines of this benchmark") from error
    if versions - {VERSION}:
        raise ConfigError(f"record {path}: version {versions}, this build reads {VERSION}")
    if cut:
        path.write_text("".join(line + "\n" for line in whole))
    return parsed


def races(lines: Iterable[dict[str, Any]]) -> dict[RaceKey, dict[str, Any]]:
    """The last race of every key, each with the line of its run under "run"."""
    found: dict[RaceKey, dict[str, Any]] = {}
    run: dict[str, Any] = {}
    for line in lines:
        if line["kind"] == "run":
            run = line
        else:
            key = RaceKey(Layer(**line["layer"]), line["batch"], line["threads"])
            found[key] = {**line, "run": run}
    return found


def check_continues(lines: Iterable[dict[str, Any]], run: dict[str, Any], path: Path) -> None:
    """Refuse to mix what was measured under other conditions.

    Raises:
        ConfigError: the record was made on another processor, or with another seed, clock or
            structure.
    """
    for line in lines:
        if line["kind"] != "run":
            continue
        for name in _SAME:
            if line[name] != run[name]:
                raise ConfigError(
                    f"record {path} was made with {name} {line[name]!r}, this run has "
                    f"{run[name]!r}: choose another file"
                )
