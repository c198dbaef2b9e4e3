"""Experiments from files and from settings given by hand."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...extras import require
from .settings import Experiment


def read_experiment(path: str | Path | None = None, settings: Sequence[str] = ()) -> Experiment:
    """The experiment in a TOML or JSON file, or the default one, with ``key=value`` settings.

    Args:
        path: ``.toml`` or ``.json``; None is the default experiment.
        settings: ``prune.sparsity=0.95``: a dotted name and a JSON value, or a bare word.

    Raises:
        ConfigError: a file that cannot be read, an unknown name, or a value that does not fit.
        MissingExtra: TOML on Python 3.10 without the package tomli.
    """
    return build(overridden({} if path is None else read_table(path), settings))


def read_table(path: str | Path) -> dict[str, Any]:
    """What a TOML or JSON file holds.

    Raises:
        ConfigError: it cannot be read, or holds no table.
        MissingExtra: TOML on Python 3.10 without the package tomli.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = _toml().loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a table, got {type(data).__name__}")
    return data


def overridden(data: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A copy of ``data`` with ``key=value`` settings.

    Raises:
        ConfigError: a setting that has no "=", or goes into something that is no table, or a value
            of a kind that no setting has, such as a date.
    """
    try:
        result = json.loads(json.dumps(data))
    except TypeError as error:  # TOML has dates too
        raise ConfigError(
            f"settings are numbers, texts, flags, lists and tables: {error}"
        ) from error
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not key or not equals:
            raise ConfigError(f"a setting is key=value, got {setting!r}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        put(result, key, value)
    return result


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set ``data["a"]["b"]`` for the key "a.b".

    Raises:
        ConfigError: "a" is there and no table.
    """
    *outer, last = key.split(".")
    place = data
    for name in outer:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{key}: {name} is no table")
    place[last] = value


def build(data: Mapping[str, Any], kind: type = Experiment, where: str = "") -> Any:
    """A dataclass, with the dataclasses in it, from plain tables.

    Raises:
        ConfigError: an unknown name, or a value of another type.
    """
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(
            f"unknown settings {[where + n for n in unknown]}, there are {sorted(known)}"
        )
    hints = typing.get_type_hints(kind)
    values = {n: _typed(v, hints[n], _default(known[n]), where + n) for n, v in data.items()}
    return kind(**values)


def _typed(value: Any, kind: Any, default: Any, where: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table, got {value!r}")
        # What is not said is as in the experiment's default, not as in the part's own.
        base = {f.name: getattr(default, f.name) for f in fields(default)}
        return build({**base, **value}, kind, where + ".")
    origin = typing.get_origin(kind) or kind
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    union = origin in (types.UnionType, typing.Union)
    kinds = typing.get_args(kind) if union else (origin,)
    choices = tuple(typing.get_origin(k) or k for k in kinds)
    is_flag = isinstance(value, bool)
    if not isinstance(value, choices) or (is_flag and bool not in choices):
        raise ConfigError(f"{where} must be {kind}, got {value!r}")
    return value


def _default(entry: Any) -> Any:
    return entry.default if entry.default is not MISSING else entry.default_factory()


def _toml() -> Any:
    try:
        return require("tomllib", "train")
    except ImportError:  # Python 3.10
        return require("tomli", "train")
