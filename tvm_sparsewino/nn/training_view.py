"""The display of a training run: a progress bar and a table of the latest figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_ROWS = 12


class TrainingView:
    """Bar and table, live on a terminal; elsewhere the last state is printed at the end.

    Args:
        steps: of the run.
        title: what is being trained.
        visible: False shows nothing.
    """

    def __init__(self, steps: int, title: str = "training", visible: bool = True) -> None:
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=_ROWS)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._task = self._bar.add_task(title, total=steps, note="")
        self._live = None
        if visible:
            self._live = Live(self._content(), console=Console(stderr=True), refresh_per_second=2)

    def __enter__(self) -> TrainingView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.update(self._content())
            self._live.stop()

    def advance(self, step: int, note: str) -> None:
        """The run is at ``step``."""
        self._bar.update(self._task, completed=step, note=note)

    def add(self, record: Mapping[str, Any]) -> None:
        """A line of the log; only its numbers are shown."""
        self._rows.append({k: v for k, v in record.items() if isinstance(v, (int, float))})
        if self._live is not None:
            self._live.update(self._content())

    def _content(self) -> Group:
        table = Table()
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        for name in names:
            table.add_column(name, justify="right")
        for row in self._rows:
            table.add_row(*(_short(row.get(name)) for name in names))
        return Group(table, self._bar) if names else Group(self._bar)


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4g}"
