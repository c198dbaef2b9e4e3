"""What one unit of work costs on a core: every constant of the cost model, in one place.

Each is in core cycles and was fitted to whole kernels, all of them together, by

    python benchmarks/planner_report.py --fit

on a core of 32 KiB L1 and 512 KiB L2 with 8 lanes (Zen 3, AVX2), one thread. That script measures
kernels over the layers of ResNet-18, ResNet-50 and VGG-16, densities, tiles and blockings, and
solves for the prices that make the sum of squared relative errors least, none of them negative.
Prices that do not depend on the CPU's caches (steps, stores) start at what its ports allow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prices:
    """Cycles per unit of each quantity that :func:`tvm_sparsewino.cost.quantities` counts.

    Attributes:
        transform_ops: one vector operation of a transform (arithmetic, shuffle, load or store).
        segments: one row segment of one channel in a transform: edges, new pages, loop entry.
        activation_lines: one cache line of the convolution's input or output, beyond L2.
        steps: one cycle in which the sparse or dense product keeps the core's ports busy.
        slices: one slice of rows of the product: mispredicted exit, prologue, first latency.
        product_stores: one vector of products stored.
        l1_misses: one line of transformed input brought from L2 into L1.
        l2_misses: one line of transformed input or products brought from L3.
        weight_lines: one line of weights and offsets, streamed from L3.
        launches: one parallel loop on several threads, from the first's start to the last's end.
    """

    transform_ops: float = 0.75
    segments: float = 80.0
    activation_lines: float = 4.0
    steps: float = 1.0
    slices: float = 17.0
    product_stores: float = 1.0
    l1_misses: float = 2.0
    l2_misses: float = 2.5
    weight_lines: float = 4.0
    launches: float = 10_000.0


PRICES = Prices()
