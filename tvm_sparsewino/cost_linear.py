"""Analytic cost of linear layers. Pure.

A layer takes what its products take or what its weights take to arrive, whichever is longer: with
few rows of data every weight is used a few times only. Constants were measured on a Zen 3 core
(AVX2, 3.2 GHz): dense kernels within the caches, sparse ones at 10 and 30 % nonzeros.
"""

from __future__ import annotations

import math

from .config_linear import LinearShape
from .geometry import FLOAT_BYTES, ceil_div
from .geometry_linear import dense_cycles, dense_linear_layout, sparse_linear_layout

INDEX_BYTES = 2
# Weights beyond this size come from memory in every call, smaller ones from the last cache.
NEAR_BYTES = 12 * 2**20
NEAR_RATE, FAR_RATE = 20.0, 5.5  # bytes per cycle
NONZERO_CYCLES = 0.5  # per nonzero: value and number of its input
VECTOR_CYCLES = 1.2  # per nonzero and vector of rows
ONE_ROW_CYCLES = 1.05  # per nonzero, where lanes are outputs
SLICE_CYCLES = 25.0  # mispredicted exit, first latency
SUM_CYCLES = 2.0  # per vector of sums loaded and stored
TRANSPOSE_CYCLES = 1.5  # per number


def predict_dense_linear(shape: LinearShape, lanes: int, registers: int) -> float:
    """Cycles of the dense kernel on one core."""
    layout = dense_linear_layout(shape, lanes, registers)
    groups = layout.groups if layout.padded_k * shape.c * FLOAT_BYTES > NEAR_BYTES else 1
    weights = layout.padded_k * shape.c * FLOAT_BYTES
    return max(dense_cycles(layout), groups * _arrival(weights))


def predict_sparse_linear(shape: LinearShape, density: float, lanes: int, registers: int) -> float:
    """Cycles of the sparse kernel on one core for weights with this share of nonzeros."""
    layout = sparse_linear_layout(shape, lanes, registers)
    # Slices are as long as their longest row: lengths scatter by the root of their mean.
    mean = density * layout.c_block
    padding = 1 + math.sqrt(max(1 - density, 0.0) / mean) / 4 if mean else 1.0
    steps = shape.k * shape.c * density * padding
    slices = layout.blocks * layout.slices * layout.c_blocks
    sums = slices * layout.slice_rows * layout.vectors
    each = NONZERO_CYCLES + VECTOR_CYCLES * layout.vectors
    walked = steps * (each if layout.width > 1 else ONE_ROW_CYCLES)
    walked += slices * SLICE_CYCLES + sums * SUM_CYCLES
    read = max(walked, _arrival(steps * (FLOAT_BYTES + INDEX_BYTES)))
    moved = shape.n * (shape.c + shape.k) * TRANSPOSE_CYCLES if shape.n > 1 else 0.0
    return layout.parts * read + moved


def tasks(shape: LinearShape, algorithm: str, lanes: int, registers: int) -> int:
    """How many tasks threads share."""
    if algorithm == "sparse_linear":
        return sparse_linear_layout(shape, lanes, registers).blocks
    layout = dense_linear_layout(shape, lanes, registers)
    return layout.blocks * layout.groups


def on_threads(cycles: float, count: int, threads: int) -> float:
    """Cycles of the thread with most to do when ``count`` tasks are shared out whole."""
    return cycles * ceil_div(count, threads) / count


def _arrival(size: float) -> float:
    return size / (FAR_RATE if size > NEAR_BYTES else NEAR_RATE)
