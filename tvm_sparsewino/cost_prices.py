"""What one unit of work costs on a core: every constant of the cost model, in one place.

Each is in core cycles. All but ``launches`` are fitted together to measured kernels by

    python benchmarks/planner_report.py --fit --out benchmarks/results/planner_report.json

which solves for the prices, none of them negative, that make the sum of squared relative errors
least over the samples of a report: kernels over the layers of ResNet-18, ResNet-50 and VGG-16,
densities, tiles and blockings. A price that the samples hardly decide stays near what it was. The
values below are from 338 samples on one core of a Zen 3 (AVX2, 32 KiB L1, 512 KiB L2), those of
slices, misses and weights from 247 later ones, of kernels whose products take the place of inputs,
that of pages from these and 198 more:
predictions spread by a factor of 1.15 around what was measured (one standard deviation), of which
a good part is other work on that machine.

What a price may be expected to be: one multiply-add or load takes half a cycle, and five
instructions begin in one, so a vector operation is 0.2; a step is counted in cycles and takes one
or little more; one vector store a cycle; a page from the second-level TLB takes 7 or 8, less where
the core works on meanwhile, and so do lines of 64 bytes from L3, those from L2 2, and those from
memory 15 to 20. ``launches`` is not fitted: it is what a parallel loop of TVM takes from its start
to the last thread's end where workers are awake, 3 microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prices:
    """Cycles per unit of each quantity that :func:`.cost_quantities.quantities` counts.

    Attributes:
        transform_ops: one vector operation of a transform (arithmetic, shuffle, load or store).
        crowded_ops: the same where registers do not hold all of a row.
        segments: one row segment of one channel in a transform: edges, new pages, loop entry.
        activation_lines: one cache line of the convolution's input or output, beyond L2.
        page_turns: one vector of scratch in a page that the first-level TLB has lost meanwhile.
        steps: one cycle in which the sparse or dense product keeps the core's ports busy.
        slices: one slice of rows of the product: mispredicted exit, prologue, first latency.
        product_stores: one vector of products stored.
        l1_misses: one line of transformed input brought from L2 into L1.
        l2_misses: one line of transformed input or products brought from L3.
        weight_lines: one line of weights and offsets, streamed from L3.
        launches: one parallel loop on several threads, from the first's start to the last's end.
    """

    transform_ops: float = 0.22
    crowded_ops: float = 0.37
    segments: float = 23.0
    activation_lines: float = 18.5
    page_turns: float = 4.0
    steps: float = 1.04
    slices: float = 2.0
    product_stores: float = 2.1
    l1_misses: float = 1.3
    l2_misses: float = 1.5
    weight_lines: float = 6.0
    launches: float = 10_000.0


PRICES = Prices()
