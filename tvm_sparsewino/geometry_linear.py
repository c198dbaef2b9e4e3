"""How the kernels of linear layers cut their work: blocks of features, rows, register blocks. Pure.

Nothing here depends on the number of threads, so neither do results.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config_linear import LinearShape
from .geometry import FLOAT_BYTES, ceil_div

MAX_VECTORS = 8  # of output features in a block: one row then keeps both FMA units busy
FMA_LATENCY = 4.0
BLOCK_OVERHEAD = 40.0  # cycles around the inner loop of a register block
SUM_CYCLES = 2.0  # per vector of sums that waits between blocks of input features
L1_WEIGHTS = 16 * 1024  # bytes of a block's weights that stay in L1 while rows pass
GROUP_ROWS = 48  # rows of a task: a block's weights stream from memory once for them
FEW_TASKS = 8

SPARSE_FEATURES = 128  # output features of a task
SPARSE_ROWS = 8  # at most this many of them are summed together
L1_DATA = 24 * 1024  # bytes of data that nonzeros of a block of input features read


@dataclass(frozen=True)
class DenseLinearLayout:
    """Dense kernel: ``rows`` x ``vectors`` accumulators, lanes are output features.

    Attributes:
        shape: the layer.
        lanes: float32 lanes of a vector.
        rows: rows of data in a register block.
        vectors: vectors of output features in a register block.
    """

    shape: LinearShape
    lanes: int
    rows: int
    vectors: int

    @property
    def width(self) -> int:
        """Output features of a block."""
        return self.vectors * self.lanes

    @property
    def blocks(self) -> int:
        """Blocks of output features."""
        return ceil_div(self.shape.k, self.width)

    @property
    def group_rows(self) -> int:
        """Rows of one task, a multiple of ``rows``: fewer where blocks alone make few tasks."""
        most = GROUP_ROWS if self.blocks >= FEW_TASKS else ceil_div(self.shape.n, FEW_TASKS)
        return ceil_div(min(most, self.shape.n), self.rows) * self.rows

    @property
    def groups(self) -> int:
        """Groups of rows."""
        return ceil_div(self.shape.n, self.group_rows)

    @property
    def c_block(self) -> int:
        """Input features whose weights stay in L1; all when every weight is used only once."""
        if self.group_rows <= self.rows:
            return self.shape.c
        return max(1, min(self.shape.c, L1_WEIGHTS // (FLOAT_BYTES * self.width)))

    @property
    def c_blocks(self) -> int:
        """Blocks of input features."""
        return ceil_div(self.shape.c, self.c_block)

    @property
    def padded_k(self) -> int:
        """Output features with those that complete the last block."""
        return self.blocks * self.width


def dense_linear_layout(shape: LinearShape, lanes: int, registers: int) -> DenseLinearLayout:
    """The register block that takes the fewest cycles for all rows of ``shape``."""
    most = min(MAX_VECTORS, ceil_div(shape.k, lanes))
    choices = [
        (rows, vectors)
        for vectors in range(1, most + 1)
        for rows in range(1, min(shape.n, registers) + 1)
        if rows * vectors + (vectors if rows > 1 else 0) + 1 <= registers
    ]

    layouts = [DenseLinearLayout(shape, lanes, *choice) for choice in choices]
    return min(layouts, key=lambda layout: (dense_cycles(layout), -layout.rows * layout.vectors))


def dense_cycles(layout: DenseLinearLayout) -> float:
    """Cycles in which the dense kernel computes, were its weights in L1."""
    full, rest = divmod(layout.shape.n, layout.rows)
    sizes = [layout.rows] * min(full, 1) + [rest] * min(rest, 1)
    counts = [full] * min(full, 1) + [1] * min(rest, 1)
    block = 0.0
    for rows, count in zip(sizes, counts, strict=True):
        sums = rows * layout.vectors
        step = max(sums / 2.0, (rows + layout.vectors) / 2.0, FMA_LATENCY)
        passes = layout.c_blocks * (BLOCK_OVERHEAD + SUM_CYCLES * sums)
        block += count * (step * layout.shape.c + passes)
    return layout.blocks * block


@dataclass(frozen=True)
class SparseLinearLayout:
    """Sparse kernel: lanes are rows of data, which lie transposed in a scratch.

    With one row of data there are no lanes: ``slice_rows`` sums run side by side instead.

    Attributes:
        shape: the layer.
        lanes: lanes that are used, a power of two; 1 for one row of data.
        vectors: vectors of rows of data that are summed at a time.
        parts: how many times ``vectors`` there are.
        slice_rows: output features that are summed together.
    """

    shape: LinearShape
    lanes: int
    vectors: int
    parts: int
    slice_rows: int

    @property
    def k_block(self) -> int:
        """Output features of a task."""
        return min(SPARSE_FEATURES, self.shape.k)

    @property
    def blocks(self) -> int:
        """Blocks of output features."""
        return ceil_div(self.shape.k, self.k_block)

    @property
    def slices(self) -> int:
        """Slices of a block."""
        return ceil_div(self.k_block, self.slice_rows)

    @property
    def width(self) -> int:
        """Floats that one input feature takes in a part of the data."""
        return self.vectors * self.lanes

    @property
    def c_block(self) -> int:
        """Input features whose data stay in L1; few enough for numbers of 16 bits."""
        most = max(1, L1_DATA // (FLOAT_BYTES * self.width))
        return ceil_div(self.shape.c, ceil_div(self.shape.c, most))

    @property
    def c_blocks(self) -> int:
        """Blocks of input features."""
        return ceil_div(self.shape.c, self.c_block)

    @property
    def padded_k(self) -> int:
        """Output features with those that complete the last block."""
        return self.blocks * self.k_block


def sparse_linear_layout(shape: LinearShape, lanes: int, registers: int) -> SparseLinearLayout:
    """The layout for ``shape``: as many sums at a time as registers hold."""
    used = min(lanes, 1 << (shape.n - 1).bit_length())
    vectors = ceil_div(shape.n, used)
    parts = ceil_div(vectors, (registers - 4) // 2)
    vectors = ceil_div(vectors, parts)
    rows = SPARSE_ROWS
    while rows * vectors > registers - 4:
        rows //= 2
    return SparseLinearLayout(shape, used, vectors, parts, rows)
