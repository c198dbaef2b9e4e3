"""Which blockings of a sparse direct convolution the cost model compares. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .config import ConvShape, LayerPlan
from .cost_quantities import Core
from .cost_sparse_work import L2_SHARE, memory_bytes
from .geometry import ceil_div, round_up
from .geometry_sparse import choose_kind, sparse_layout, thinned
from .pool_window import Window

ROWS = (1, 2, 3, 4)
PANEL_VECTORS = (7, 12, 14, 20, 28, 60, 120, 0)
RUN_VECTORS = (2, 3, 4, 5, 6, 9, *PANEL_VECTORS)  # where runs of pixels are copied
CHANNEL_BLOCKS = (24, 48, 96, 128, 256, 0)
# Predicted like 256, 128 channels of 7 vectors were measured 6 to 15 % slower: they fill L1.
RUN_BLOCKS = (24, 48, 96, 256, 0)
K_BLOCKS = (64, 128, 256, 512, 0)
MOST_L2 = 4  # times L2: panels whose scratch is larger are not compared


def compared_plans(shape: ConvShape, core: Core, window: Window | None) -> Iterator[LayerPlan]:
    """Every plan that is compared, for kernels of ``core.lanes`` lanes.

    Args:
        shape: the convolution.
        core: the machine.
        window: of the maximum that rows are pooled with; None without.
    """
    pool = {} if window is None else {"pool": "max", "window": window}
    plain = LayerPlan("", shape, 1.0, "sparse_direct", **pool)
    read = thinned(shape, core.lanes)
    yield from _blockings(plain, core)
    # Copies of what could be read in place gain up to a third on Zen 4, and nothing on Zen 3.
    if choose_kind(read, core.lanes) == "map" and core.is_wide:
        yield from _blockings(replace(plain, copied=True), core)


def _blockings(plain: LayerPlan, core: Core) -> Iterator[LayerPlan]:
    """``plain`` with every size that is compared."""
    shape = plain.conv
    per_group, channels = shape.k // shape.groups, shape.c // shape.groups
    k_blocks = [min(k or per_group, per_group) for k in (K_BLOCKS if core.threads > 1 else (0,))]
    if plain.pool != "none":  # all panels of a block are one task
        k_blocks.append(min(round_up(ceil_div(per_group, core.threads), ROWS[-1]), per_group))
    runs = choose_kind(thinned(shape, core.lanes), core.lanes, plain.copied) == "runs"
    listed = RUN_BLOCKS if runs else CHANNEL_BLOCKS
    blocks = dict.fromkeys(min(c or channels, channels) for c in listed)
    seen = set()
    for rows in dict.fromkeys(min(rows, per_group) for rows in ROWS):
        for vectors in RUN_VECTORS if runs else PANEL_VECTORS:
            with_rows = replace(plain, panel_vectors=vectors, rows_at_once=rows)
            panel = sparse_layout(with_rows, core.lanes).rows
            for k in dict.fromkeys(k_blocks):
                for c in blocks:
                    if (panel, k, c, rows) in seen:
                        continue
                    plan = replace(with_rows, k_block=k, channel_block=c)
                    if _is_small(plan, core):
                        seen.add((panel, k, c, rows))
                        yield plan


def _is_small(plan: LayerPlan, core: Core) -> bool:
    """Whether a thread needs little memory, or no smaller panel is compared; rows that wait for a
    pool have to stay in L2.
    """
    memory = memory_bytes(sparse_layout(plan, core.lanes), core)
    if plan.pool != "none":
        return memory <= L2_SHARE * core.l2_bytes
    return plan.panel_vectors == PANEL_VECTORS[0] or memory <= MOST_L2 * core.l2_bytes
