"""The windows of a pooling. Pure integers."""

from __future__ import annotations

from typing import Any, NamedTuple

from .errors import ConfigError


class Window(NamedTuple):
    """Windows over a map, NCHW; by default those that halve it.

    Attributes:
        rows, columns: of a window.
        down, across: from one window to the next.
        top, left, bottom, right: what windows may reach over the map's border.
    """

    rows: int = 2
    columns: int = 2
    down: int = 2
    across: int = 2
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right."""
        return self[4:]

    def pooled(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of what a map becomes."""
        return (
            (height + self.top + self.bottom - self.rows) // self.down + 1,
            (width + self.left + self.right - self.columns) // self.across + 1,
        )

    @property
    def text(self) -> str:
        """Size and stride for people."""
        return f"{self.rows}x{self.columns}/{self.down}" + (
            f"x{self.across}" if self.across != self.down else ""
        )


HALVING = Window()


def window_between(
    size: tuple[int, int],
    stride: tuple[int, int],
    corner: tuple[int, int],
    map_size: tuple[int, int],
    pooled: tuple[int, int],
) -> Window:
    """The windows that make maps of ``pooled`` of such of ``map_size``, however that was rounded.

    Args:
        size, stride: of the windows, rows before columns.
        corner: how far the first one reaches over the map's top and left border.
        map_size, pooled: rows and columns.
    """
    sizes = zip(size, stride, corner, map_size, pooled, strict=True)
    ends = [max((out - 1) * step + taps - before - n, 0) for taps, step, before, n, out in sizes]
    return Window(*size, *stride, *corner, *ends)


def checked_window(numbers: Any) -> Window:
    """Eight whole numbers as a window, whose padding above and to the left is smaller than it.

    A list counts as well as a tuple: JSON, in which plans are kept, has lists only.

    Raises:
        ConfigError: others.
    """
    count = len(Window._fields)
    ok = isinstance(numbers, tuple | list) and len(numbers) == count
    if not ok or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise ConfigError(f"window must be {count} whole numbers, got {numbers!r}")
    window = Window(*numbers)
    if min(window[:4]) < 1 or window.top >= window.rows or window.left >= window.columns:
        raise ConfigError(
            f"sizes and strides of a window are above 0, its padding below it, got {window!r}"
        )
    return window
