"""Structures found from zeros alone: the ones that are there, the order, the padding allowed."""

import numpy as np
import pytest
from kernel_cases import weights

from tvm_sparsewino.config import STRUCTURES
from tvm_sparsewino.structure import (
    MAX_PADDING,
    PREFERRED,
    detect_structure,
    stored_values,
)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_is_there_is_found(rng, structure):
    assert detect_structure(weights(structure, rng)) == structure


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("groups", [1, 2])
def test_an_exact_pattern_is_stored_without_padding(rng, structure, groups):
    nonzero = weights(structure, rng, groups=groups) != 0
    assert stored_values(nonzero, structure, groups) == np.count_nonzero(nonzero)


@pytest.mark.parametrize("structure", PREFERRED)
def test_a_few_zeros_more_do_not_hide_it(rng, structure):
    """Values at exactly zero inside the pattern: up to the padding allowed, and no further."""
    u = weights(structure, rng)
    alive = np.flatnonzero(u)
    # Half and twice what is allowed.
    for share, found in ((MAX_PADDING / 2, True), (2 * MAX_PADDING, False)):
        v = u.copy()
        v.flat[rng.permutation(alive)[: round(share * len(alive))]] = 0
        assert (detect_structure(v) == structure) == found


def test_one_long_row_is_not_balanced(rng):
    u = weights("balanced", rng)
    u[0, 0] = 1
    assert detect_structure(u) == "unstructured"


def test_the_one_that_saves_most_is_taken(rng):
    """No zeros at all: every structure fits. Pairs of channels, the same for all coordinates."""
    assert detect_structure(np.ones((16, 8, 8), np.float32)) == "rows4"
    pairs = np.broadcast_to((rng.random((8, 20)) < 0.3).repeat(2, axis=0), (16, 16, 20))
    assert detect_structure(pairs.astype(np.float32)) == "rows2"
    kernels = np.broadcast_to(rng.random((8, 20)).argsort(axis=1) < 5, (16, 8, 20))
    assert detect_structure(kernels.astype(np.float32)) == "kernel"


def test_rows_are_shared_within_groups_only(rng):
    """Six channels in two groups of three: pairs across the border do not count."""
    u = weights("rows2", rng, (16, 60, 20), groups=1)
    assert detect_structure(u) == "rows2"
    assert detect_structure(u, groups=4) == "unstructured"


def test_rows_that_are_missing_count_as_padding(rng):
    """Five channels are computed as eight, 30 as 32: too much, and not much."""
    five = weights("rows4", rng, (16, 5, 40), 0.5)
    assert stored_values(five != 0, "rows4") > 1.2 * np.count_nonzero(five)
    assert detect_structure(five) != "rows4"
    wide = np.ones((16, 47, 20), np.float32)
    assert stored_values(wide != 0, "rows4") == 16 * 48 * 20
    assert detect_structure(wide) == "rows4"


def test_single_rows_share_with_nobody(rng):
    """Depthwise: every group has one output channel."""
    u = weights("unstructured", rng, (16, 12, 1), 0.5)
    assert detect_structure(u, groups=12) == "unstructured"


def test_nothing_has_no_structure():
    assert detect_structure(np.zeros((16, 8, 8), np.float32)) == "unstructured"
    assert detect_structure(np.zeros((16, 0, 8), np.float32)) == "unstructured"
