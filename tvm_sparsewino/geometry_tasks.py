"""How panels that do not divide evenly are shared among threads. Pure integers.

Each thread computes as many whole panels as all threads can, then its part of the panels that are
left: blocks of output channels, each of which transforms its panel's inputs for itself. Tasks are
numbered thread by thread, since TVM gives each thread a run of tasks one after the other. Any other
number of threads may run them as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from .geometry import ceil_div


@dataclass(frozen=True)
class Tasks:
    """The tasks of a kernel.

    Attributes:
        threads: among how many panels are shared out.
        whole: panels that each thread computes as wholes.
        parts: blocks of output channels of the panels that are left, for each thread.
        blocks: blocks of output channels of a panel.
        left: panels that are left.
    """

    threads: int
    whole: int
    parts: int
    blocks: int
    left: int

    @property
    def each(self) -> int:
        """Tasks of a thread."""
        return self.whole + self.parts

    @property
    def count(self) -> int:
        """Tasks altogether; the last ones may be empty."""
        return self.threads * self.each

    @property
    def all_exist(self) -> bool:
        """Whether no task is empty."""
        return self.threads * self.parts == self.left * self.blocks


def share_out(panels: int, blocks: int, threads: int) -> Tasks:
    """Share ``panels`` panels of ``blocks`` blocks of output channels out among ``threads``."""
    whole, left = divmod(panels, threads)
    return Tasks(threads, whole, ceil_div(left * blocks, threads), blocks, left)
