"""Records of measurements: one JSON object a line, only ever appended.

A line holds what was tuned (``layer``), what was measured fastest (``plan``, the fields of
:class:`LayerPlan` that a kernel is built from), by which kernels (``kernels``) and how fast. Of
several records of a layer the last one counts. A line that a crash cut short can only be the last:
it is passed over when reading and removed when the next record is appended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import VERSION, ConvShape, LayerPlan
from .errors import ConfigError, TuneError, in_context

FORMAT = "tvm-sparsewino tuning record"
SPATIAL = "spatial"
# What a plan says of the layer or to people; all else decides which kernel is built.
_NOT_TUNED = ("name", "conv", "density", "reason", "flops_direct", "flops_done", "cost_cycles")
TUNED = tuple(f.name for f in dataclasses.fields(LayerPlan) if f.name not in _NOT_TUNED)


@dataclass(frozen=True)
class LayerKey:
    """What must be equal for a record to hold for a layer.

    Attributes:
        conv: the shape.
        weights: "spatial", or "F(m,r)" where the weights are coefficients of it.
        density: share of nonzeros of these weights, to two significant digits: networks that are
            trained again have nearly the same, and the best plan hardly depends on it.
        structure: the pattern of the zeros.
        target: the target's text.
        threads: threads of a call.
    """

    conv: ConvShape
    weights: str
    density: str
    structure: str
    target: str
    threads: int


def layer_key(
    conv: ConvShape, m: int, density: float, structure: str, target: str, threads: int
) -> LayerKey:
    """The key of a layer whose weights are coefficients of F(m, r), or a filter if m is 0."""
    weights = f"F({m},{conv.r})" if m else SPATIAL
    return LayerKey(conv, weights, f"{density:.2g}", structure, target, threads)


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        key: the layer.
        kernels: version of the kernels that were measured.
        plan: the tuned fields of the fastest plan.
        seconds: fastest of its calls.
        median_seconds: median of its calls.
        model_seconds: fastest call of what the cost model would have taken.
        candidates: how many plans were measured.
    """

    key: LayerKey
    kernels: str
    plan: Mapping[str, Any]
    seconds: float
    median_seconds: float
    model_seconds: float
    candidates: int

    def to_line(self) -> str:
        """The record as one line, without its end."""
        data = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        data["layer"] = data.pop("key")
        return json.dumps(data)

    @classmethod
    def from_line(cls, line: str) -> Record:
        """Read what :meth:`to_line` made.

        Raises:
            TuneError: anything else.
        """
        try:
            data = json.loads(line)
        except ValueError as error:
            raise TuneError(f"not JSON: {error}") from error
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise TuneError(f"not a {FORMAT!r}")
        version = data.pop("version", None)
        if version != VERSION:
            raise TuneError(f"version {version!r}, this build reads {VERSION}")
        try:
            layer = dict(data.pop("layer"))
            conv = ConvShape.from_json({"version": VERSION, **layer.pop("conv")})
            record = cls(LayerKey(conv, **layer), **data)
            _check_values(record)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise TuneError(f"damaged: {reason}") from error
        return record

    def __post_init__(self) -> None:
        object.__setattr__(self, "plan", _as_planned(self.plan))


def _as_planned(plan: Any) -> Any:
    """``plan`` with lists as tuples: JSON, which it may come from, has lists only."""
    if not isinstance(plan, Mapping):
        return plan
    return {name: tuple(v) if isinstance(v, list) else v for name, v in plan.items()}


def tuned_fields(plan: LayerPlan) -> dict[str, Any]:
    """The fields of ``plan`` that decide which kernel is built."""
    return {name: getattr(plan, name) for name in TUNED}


def _check_values(record: Record) -> None:
    """Refuse values that no run of the tuner writes."""
    hash(record.key)  # refuses objects and lists
    if not isinstance(record.kernels, str) or not isinstance(record.candidates, int):
        raise ConfigError("'kernels' must be text and 'candidates' a number")
    seconds = (record.seconds, record.median_seconds, record.model_seconds)
    if not all(isinstance(s, float) and math.isfinite(s) and s > 0 for s in seconds):
        raise ConfigError(f"times must be positive numbers of seconds, got {seconds}")


def _check_plan(record: Record) -> None:
    """Refuse a plan that this build has no kernel for; records of other kernels may differ."""
    try:
        if set(record.plan) != set(TUNED):
            raise ConfigError(f"the plan has the fields {sorted(record.plan)}, not {sorted(TUNED)}")
        LayerPlan("", record.key.conv, 1.0, **record.plan)
    except (TypeError, ConfigError) as error:
        raise TuneError(f"damaged: {error}") from error


class Records:
    """Records of one version of the kernels, and how many others there are.

    Args:
        records: in the order in which they were made.
        kernels: version of the kernels that will be built.
    """

    def __init__(self, records: Iterable[Record] = (), kernels: str = "") -> None:
        self.kernels = kernels
        self._found: dict[LayerKey, Record] = {}
        self._stale: dict[LayerKey, Record] = {}
        for record in records:
            found = self._found if record.kernels == kernels else self._stale
            found[record.key] = record

    def find(self, key: LayerKey) -> Record | None:
        """The last record of a layer, None if there is none of these kernels."""
        return self._found.get(key)

    def why_not(self, key: LayerKey) -> str:
        """Why :meth:`find` finds nothing, where a record comes near; "" otherwise."""
        if key in self._found:
            return ""
        if key in self._stale:
            return f"a record of other kernels ({self._stale[key].kernels}) is ignored"
        for other in self._found:
            if dataclasses.replace(other, target=key.target) == key:
                return f"a record for {other.target!r} is ignored"
            if dataclasses.replace(other, threads=key.threads) == key:
                return f"a record for {other.threads} threads is ignored"
        return ""


def read_records(path: str | os.PathLike[str], kernels: str) -> Records:
    """Read a file of records.

    Args:
        path: the file.
        kernels: version of the kernels that will be built; records of others are not used.

    Raises:
        TuneError: the file is missing or cannot be read, or a line of it is damaged; names both.
    """
    try:
        *lines, unfinished = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TuneError(f"{path}: cannot be read: {reason}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        with in_context(f"{path}:{number}"):
            records.append(Record.from_line(line))
            if records[-1].kernels == kernels:
                _check_plan(records[-1])
    # A last line without its end is half of one, or was written by an editor.
    with contextlib.suppress(TuneError):
        records += [Record.from_line(unfinished)] if unfinished else []
    return Records(records, kernels)


def append_record(path: str | os.PathLike[str], record: Record) -> None:
    """Add a record to a file, which is made if missing; it is on disk when this returns.

    One process at a time may append to a file.

    Raises:
        TuneError: the file cannot be written.
    """
    try:
        with open(path, "ab+") as file:
            _finish_last_line(file)
            file.write(record.to_line().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TuneError(f"{path}: cannot be written: {error.strerror or error}") from error


def _finish_last_line(file: Any) -> None:
    """Remove half a line at the end; a whole one that lacks its end gets it."""
    file.seek(0)
    *_, last = file.read().split(b"\n")
    if not last:
        return
    try:
        Record.from_line(last.decode("utf-8", "replace"))
    except TuneError:
        file.truncate(file.tell() - len(last))
    else:
        file.write(b"\n")
