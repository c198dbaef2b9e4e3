"""Blocks of output channels: which of them a task computes, and the loops over their slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .._compat import T
from ..geometry import KernelLayout


@dataclass(frozen=True)
class Blocks:
    """Adjacent blocks of output channels.

    Attributes:
        first: index of the first.
        count: how many; more than one only where products of all blocks are kept.
    """

    first: Any
    count: Any = 1


@contextmanager
def each_block(layout: KernelLayout, blocks: Blocks) -> Iterator[tuple[Any, Any]]:
    """Loop over coordinates, in each over the blocks: products take the place of inputs of the
    coordinate before, so all blocks are done with one before the next begins.
    """
    with T.serial(0, layout.v.coordinates) as coordinate:
        if isinstance(blocks.count, int) and blocks.count == 1:
            yield coordinate, blocks.first
        else:
            with T.serial(0, blocks.count) as number:
                yield coordinate, blocks.first + number


@contextmanager
def each_slice(layout: KernelLayout, blocks: Blocks) -> Iterator[tuple[Any, Any, Any]]:
    """Loop over coordinates, blocks and their slices."""
    with each_block(layout, blocks) as (coordinate, block), T.serial(0, layout.slices) as index:
        yield coordinate, block, index
