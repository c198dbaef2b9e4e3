"""Run many experiments from one file, keeping each record as soon as its run is finished."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ...errors import ConfigError, in_context
from ...files import replacing
from ..data import load_data
from ..data.fingerprint import images_id
from ..distributed import find_device, joined
from .reading import build, overridden, put, read_table
from .record import identity
from .run import run_experiment
from .settings import Experiment


def expand(table: Mapping[str, Any], settings: Sequence[str] = ()) -> list[Experiment]:
    """The experiments of a matrix, in order, each once.

    ``{"base": EXPERIMENT, "runs": [{"seed": [1, 2], "prune.sparsity": [0.9, 0.95]}, ...]}``: each
    entry of ``runs`` stands for all combinations of its settings, the first one varying slowest;
    a setting that is no list is the same in all.

    Args:
        table: as above.
        settings: ``key=value``, over what the base says.

    Raises:
        ConfigError: another form, or settings that do not fit.
    """
    if not _is_matrix(table):
        raise ConfigError(
            'a matrix has "base", a table, and "runs", a list of tables, nothing else'
        )
    base = overridden(table["base"], settings)
    found: dict[str, Experiment] = {}
    for entry in [overridden(x, ()) for x in table["runs"]]:
        choices = [v if isinstance(v, list) else [v] for v in entry.values()]
        for values in itertools.product(*choices):
            data = overridden(base, ())
            for key, value in zip(entry, values, strict=True):
                put(data, key, value)
            experiment = build(data)
            found.setdefault(identity(experiment), experiment)
    return list(found.values())


def _is_matrix(table: Mapping[str, Any]) -> bool:
    return (
        set(table) == {"base", "runs"}
        and isinstance(table["base"], Mapping)
        and isinstance(table["runs"], list)
        and all(isinstance(entry, Mapping) for entry in table["runs"])
    )


def run_matrix(
    path: str | Path,
    out_dir: str | Path,
    records: str | Path,
    settings: tuple[str, ...] = (),
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Run what is missing of a matrix; returns the records of all of its runs.

    A run whose record is there is not done again, so a matrix that was stopped goes on where it
    was, and one that grew does what is new. Runs with one dense network train it once.

    Args:
        path: TOML or JSON file, see :func:`expand`.
        out_dir: one folder per run in it.
        records: JSON lines; a finished run's record is added at once.
        settings: ``key=value``, over what the file says for all runs.
        progress: show progress.

    Raises:
        ConfigError: as :func:`expand`, a file of records that cannot be read, and what
            :func:`~.run.run_experiment` raises, with the run's name.
    """
    out_dir, records = Path(out_dir), Path(records)
    table = read_table(path)
    with in_context(str(path)):
        experiments = expand(table, settings)
    known = _by_identity(records)
    missing = [e for e in experiments if identity(e) not in known]
    _check_images([e for e in experiments if e not in missing], missing, known, records)
    # All processes look before they meet, so that they agree; one group of them for all runs.
    with joined(find_device(missing[0].device)) if missing else nullcontext():
        for experiment in missing:
            name = run_name(experiment)
            dense = out_dir / dense_name(experiment)
            with in_context(name):
                record = run_experiment(experiment, out_dir / name, dense, progress=progress)
            if record:
                _add(records, record)
    known = _by_identity(records)
    return [known[identity(e)] for e in experiments if identity(e) in known]


def _check_images(
    finished: Sequence[Experiment],
    missing: Sequence[Experiment],
    known: Mapping[str, Any],
    records: Path,
) -> None:
    """Whether finished runs saw the images that those to come will see.

    Raises:
        ConfigError: other ones; and what :func:`~tvm_sparsewino.nn.data.load_data` raises.
    """
    for place in {_place(e) for e in missing}:
        # Records older than this entry do not tell.
        pairs = [(e, known[identity(e)].get("images")) for e in finished if _place(e) == place]
        told = [(e, images) for e, images in pairs if images is not None]
        own = images_id(load_data(*place)) if told else None
        for e, images in told:
            if images != own:
                raise ConfigError(
                    f"{records}: {run_name(e)} saw other images ({images}, not {own}): runs on "
                    "these ones take a file of records of their own"
                )


def _place(e: Experiment) -> tuple[str, str | None, int | None]:
    return e.data, e.data_folder, e.image_size


def run_name(experiment: Experiment) -> str:
    """Of a run's folder."""
    e = experiment
    what = e.prune.method if e.prune.method in ("dense", "continued") else _pruned_name(e)
    return f"{e.network}-{e.data}-{what}-seed{e.seed}-{identity(e)}"


def dense_name(experiment: Experiment) -> str:
    """Of the folder of a run's dense network."""
    e = experiment
    return f"{e.network}-{e.data}-start-seed{e.seed}-{identity(e, dense=True)}"


def read_records(path: Path) -> list[dict[str, Any]]:
    """Records of finished runs; none if there is no file.

    Raises:
        ConfigError: a line that is no record.
    """
    if not path.exists():
        return []
    try:
        found = [json.loads(line) for line in path.read_text().splitlines() if line]
        return [record for record in found if record["experiment"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} holds a line that is no record: {error}") from error


def _by_identity(path: Path) -> dict[str, dict[str, Any]]:
    with in_context(str(path)):
        return {identity(build(r["experiment"])): r for r in read_records(path)}


def _add(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    if before and not before.endswith("\n"):  # edited by hand
        before += "\n"
    with replacing(path) as beside:
        beside.write_text(before + json.dumps(record) + "\n")


def _pruned_name(experiment: Experiment) -> str:
    prune = experiment.prune
    sizes = prune.tile.items() if isinstance(prune.tile, dict) else ()
    tile = "_".join(f"{m}x{r}" for r, m in sizes) or prune.tile
    return f"{prune.method}-F{tile}-{100 * prune.sparsity:g}"
