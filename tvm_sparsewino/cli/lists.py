"""Options that hold several values with commas between."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def texts(text: str) -> list[str]:
    """The parts that are not empty."""
    return [part for part in text.split(",") if part]


def numbers(kind: type) -> Callable[[str], list[Any]]:
    """Reads positive numbers of ``kind``.

    What it returns raises argparse.ArgumentTypeError at others, which argparse reports.
    """

    def read(text: str) -> list[Any]:
        values = [kind(part) for part in texts(text)]
        if not values or min(values) <= 0:
            raise argparse.ArgumentTypeError(f"expected positive numbers, got {text!r}")
        return values

    read.__name__ = f"list of {kind.__name__}"  # what argparse calls it
    return read
