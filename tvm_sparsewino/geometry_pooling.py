"""Pooling after a convolution: sizes, and which kernels can do it themselves."""

from __future__ import annotations

from dataclasses import dataclass

from .config import ConvShape, Epilogue, LayerPlan
from .geometry import ceil_div
from .pool_window import HALVING, Window

WINDOW = 2  # rows and columns of a window that Winograd kernels pool, and its stride
# Windows that rows are pooled with from registers, and columns of what a row becomes: the code has
# a piece of its own for each of its vectors, and each has four outputs at least.
MOST_TAPS, MOST_ACROSS, COLUMNS = 5, 2, range(4, 257)


@dataclass(frozen=True)
class OutputMap:
    """What a kernel writes of every output channel.

    Attributes:
        step: numbers per tile and dimension.
        height, width: of the whole map.
    """

    step: int
    height: int
    width: int


def output_map(shape: ConvShape, m: int, pool: str) -> OutputMap:
    """The map that tiles of m x m outputs make, pooled or not; windows that jut out are dropped."""
    if pool == "none":
        return OutputMap(m, shape.oh, shape.ow)
    return OutputMap(m // WINDOW, shape.oh // WINDOW, shape.ow // WINDOW)


def output_shape(shape: ConvShape, epilogue: Epilogue) -> tuple[int, int, int, int]:
    """Shape of the output [N, K, ...] behind the whole epilogue."""
    size = (shape.oh, shape.ow)
    return shape.n, shape.k, *(size if epilogue.pool == "none" else epilogue.window.pooled(*size))


def pool_refusal(plan: LayerPlan, epilogue: Epilogue) -> str:
    """Why the kernel of ``plan`` cannot pool its outputs as ``epilogue`` says; "" when it can.

    Windows of Winograd kernels must lie inside tiles, so that the four numbers of each are in
    registers together; sparse direct kernels pool rows. A residual is added to whole maps.
    """
    window, shape = epilogue.window, plan.conv
    if min(output_shape(shape, epilogue)) < 1:
        return f"a {shape.oh}x{shape.ow} map has no window"
    if plan.algorithm.endswith("winograd"):
        if window != HALVING:
            return f"only 2x2 windows with stride 2 lie in tiles, not {window.text}"
        if plan.m % WINDOW:
            return f"tiles of {plan.m} x {plan.m} outputs cut windows apart"
    elif plan.algorithm == "sparse_direct":
        refusal = _row_refusal(shape, epilogue)
        if refusal:
            return refusal
    else:
        return f"only Winograd and sparse direct kernels pool, not {plan.algorithm!r}"
    return "a residual is added before it" if epilogue.residual else ""


def _row_refusal(shape: ConvShape, epilogue: Epilogue) -> str:
    """Why no rows of outputs of a sparse direct kernel are pooled."""
    window = epilogue.window
    if epilogue.pool != "max":
        return f"rows have no {epilogue.pool} pool"
    if shape.taps == 1 and not any(shape.padding):
        return "1x1 filters compute runs of pixels, not rows"
    if max(window.rows, window.columns) > MOST_TAPS or window.across > MOST_ACROSS:
        return f"rows are not pooled with {window.text} windows"
    columns = min(shape.ow, window.pooled(shape.oh, shape.ow)[1])
    return "" if columns in COLUMNS else f"rows of {columns} outputs are pooled by themselves"


@dataclass(frozen=True)
class PooledRows:
    """Rows of a map that are computed panel after panel, and pooled as soon as they are there.

    Attributes:
        window: of the pool.
        height: rows of the whole map.
        out: rows that it becomes.
        rows: rows of a panel, a multiple of the windows' distance.
    """

    window: Window
    height: int
    out: int
    rows: int

    @property
    def needed(self) -> int:
        """Rows that some window reads."""
        return min(self.height, self._reach)

    @property
    def _reach(self) -> int:
        """Rows to the end of the last window, inside the map or not."""
        return (self.out - 1) * self.window.down + self._below + 1

    @property
    def _below(self) -> int:
        """From the first row of the map to the last of its first window."""
        return self.window.rows - 1 - self.window.top

    @property
    def panels(self) -> int:
        """Panels of the map."""
        return ceil_div(self.needed, self.rows)

    @property
    def kept(self) -> int:
        """Rows before a panel that windows which end in it read."""
        return self._below // self.window.down * self.window.down + self.window.top

    @property
    def slots(self) -> int:
        """Rows in memory: kept ones, those of a panel, and those that windows read beyond the map.

        The rows of a panel follow those that are kept.
        """
        beyond = self._reach - (self.panels - 1) * self.rows
        return self.kept + max(self.rows, beyond)

    @property
    def beyond(self) -> range:
        """Slots of the last panel that windows read although they lie beyond the map."""
        first = self.kept - (self.panels - 1) * self.rows
        return range(first + self.needed, max(first + self._reach, first + self.needed))

    @property
    def lag(self) -> int:
        """Windows that begin above a panel but end in it: the first of them is as far behind."""
        return self._below // self.window.down
