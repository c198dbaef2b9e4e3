"""Detect the pattern of the zeros of Winograd coefficients, from the zeros alone.

A structure is what a sparse kernel can make use of:

    ``rows4``, ``rows2``  4 or 2 adjacent output channels have their zeros at the same input
                          channels, coordinate by coordinate: one input feeds them all
    ``kernel``            a pair of output and input channel is zero for all coordinates or for
                          none: one list of inputs serves all coordinates
    ``balanced``          every row, that is every pair of coordinate and output channel, has
                          equally many nonzeros: no row's length needs to be looked up

Any weights can be stored in any structure, exact zeros completing the pattern. A layer *has* a
structure if that completion adds at most ``MAX_PADDING`` of its nonzeros: coefficients that trained
networks happen to have at exactly zero should not hide a structure, and what is added is computed
for nothing. Of several the first of ``PREFERRED`` is taken, the one that saves most.
"""

from __future__ import annotations

import numpy as np

MAX_PADDING = 0.05
PREFERRED = ("rows4", "rows2", "kernel", "balanced")
_SHARED_ROWS = {"rows2": 2, "rows4": 4}


def shared_rows(structure: str) -> int:
    """Adjacent output channels that share their zeros in ``structure``."""
    return _SHARED_ROWS.get(structure, 1)


def detect_structure(weight: np.ndarray, groups: int = 1) -> str:
    """The structure of U, [alpha^2, K, C/groups]: one of ``config.STRUCTURES``.

    Output channels share a pattern within a group of the convolution only. Weights without any
    nonzero have no structure.
    """
    nonzero = weight != 0
    most = np.count_nonzero(nonzero) * (1 + MAX_PADDING)
    found = (s for s in PREFERRED if most and stored_values(nonzero, s, groups) <= most)
    return next(found, "unstructured")


def stored_values(nonzero: np.ndarray, structure: str, groups: int = 1) -> int:
    """Values that are stored, exact zeros included, where ``nonzero`` marks the others.

    Args:
        nonzero: bool [alpha^2, K, C/groups].
        structure: one of ``config.STRUCTURES``.
        groups: channel groups of the convolution.
    """
    if structure == "balanced":
        return int(np.count_nonzero(nonzero, axis=2).max(initial=0)) * nonzero[..., 0].size
    if structure == "kernel":
        return np.count_nonzero(nonzero.any(axis=0)) * len(nonzero)
    width = shared_rows(structure)
    coordinates, k, channels = nonzero.shape
    # Rows that are missing in a group's last slice are computed as well.
    rows = nonzero.reshape(coordinates, groups, k // groups, channels)
    rows = np.pad(rows, ((0, 0), (0, 0), (0, -(k // groups) % width), (0, 0)))
    return np.count_nonzero(rows.reshape(-1, width, channels).any(axis=1)) * width
