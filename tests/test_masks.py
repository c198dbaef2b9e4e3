"""Masks that keep to a structure: the pattern, the share, the choice, and both budgets."""

import pytest
import torch

from tvm_sparsewino.nn.masks import choose_masks

SHARED = {"rows2": 2, "rows4": 4}
STRUCTURES = ("unstructured", "balanced", "rows2", "rows4", "kernel", "outputs", "inputs")


def one(score, sparsity, structure, groups=1):
    return choose_masks({"a": score}, {"a": groups}, sparsity, structure, "layer")["a"]


def is_shared(mask, width, groups=1):
    """Whether ``width`` adjacent channels agree; a group's last ones may be fewer."""
    rows = mask.view(mask.shape[0], groups, -1, mask.shape[2])
    parts = [part for group in rows.unbind(1) for part in group.split(width, dim=1)]
    return all(bool((part == part[:, :1]).all()) for part in parts)


def keeps_to(mask, structure, groups=1):
    if structure == "kernel":
        return bool((mask == mask[:1]).all())
    if structure == "outputs":
        return bool((mask == mask[:1, :, :1]).all())
    if structure == "inputs":
        by_group = mask.view(mask.shape[0], groups, -1, mask.shape[2])
        return bool((by_group == by_group[:1, :, :1]).all())
    if structure == "balanced":
        return len(set(mask.sum(2).flatten().tolist())) == 1
    return is_shared(mask, SHARED.get(structure, 1), groups)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("k", "groups"), [(8, 1), (7, 1), (1, 1), (10, 2), (6, 6)])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9])
def test_the_pattern_and_the_share(structure, k, groups, sparsity):
    score = torch.rand(16, k, 20)
    mask = one(score, sparsity, structure, groups)
    assert mask.dtype == torch.bool and mask.shape == score.shape
    assert keeps_to(mask, structure, groups)
    # The nearest whole unit: half of one, which is 16 coefficients but for whole feature maps.
    unit = {"outputs": 16 * 20, "inputs": 16 * k // groups}.get(structure, 16)
    assert float((~mask).sum()) == pytest.approx(sparsity * mask.numel(), abs=unit / 2)


@pytest.mark.parametrize("structure", STRUCTURES[1:])
def test_random_masks_have_no_structure(structure):
    assert not keeps_to(torch.rand(16, 8, 20) < 0.5, structure)


@pytest.mark.parametrize("structure", ["rows2", "rows4", "kernel"])
def test_units_go_by_their_mean_square(structure):
    """Seven channels: the last unit is smaller, and its mean counts, not its sum."""
    score = torch.rand(16, 7, 12)
    mask = one(score, 0.5, structure)
    width = SHARED.get(structure, 1)
    if structure == "kernel":
        mean, kept = score.square().mean(0), mask[0]
    else:
        mean = torch.cat([p.square().mean(1, keepdim=True) for p in score.split(width, 1)], 1)
        kept = mask[:, ::width]
    assert float(mean[~kept].max()) <= float(mean[kept].min())


def test_balanced_keeps_the_largest_of_every_row():
    score = torch.rand(4, 3, 10)
    mask = one(score, 0.7, "balanced")
    smallest_kept = torch.where(mask, score, 2.0).amin(2)
    largest_gone = torch.where(mask, -1.0, score).amax(2)
    assert bool((mask.sum(2) == 3).all()) and bool((largest_gone < smallest_kept).all())


def test_balanced_leaves_no_row_empty():
    assert bool((one(torch.rand(16, 4, 3), 0.99, "balanced").sum(2) == 1).all())


@pytest.mark.parametrize("structure", ["unstructured", "rows2", "rows4", "kernel"])
def test_a_global_budget_compares_layers_in_their_own_units(structure):
    """Layer b is a million times larger, and all its power is in an eighth of its channels."""
    scores = {"a": torch.rand(16, 8, 16) + 0.5, "b": torch.full((36, 8, 16), 1.0)}
    scores["b"][:, :, :2] = 1e6
    masks = choose_masks(scores, {"a": 1, "b": 1}, 0.5, structure, "global")
    zeros = {name: float((~mask).float().mean()) for name, mask in masks.items()}
    assert sum(float((~m).sum()) for m in masks.values()) == pytest.approx(
        0.5 * sum(m.numel() for m in masks.values()), abs=18
    )
    assert zeros["a"] < 0.05 and bool(masks["b"][:, :, :2].all())
    assert all(keeps_to(mask, structure) for mask in masks.values())


@pytest.mark.parametrize("structure", [s for s in STRUCTURES if s != "outputs"])
def test_scores_below_zero_go_first(structure):
    """Units that are gone; the first of a row, of a kernel, of all channels."""
    score = torch.rand(4, 8, 10)
    score[:, :, :3] = -1.0
    mask = one(score, 0.3, structure)
    assert not bool(mask[:, :, :3].any()) and bool(mask[:, :, 3:].all())


def test_output_maps_that_are_gone_go_first():
    score = torch.rand(4, 10, 3)
    score[:, [2, 5, 7]] = -1.0
    mask = one(score, 0.3, "outputs")
    assert torch.equal(mask, score > 0)


@pytest.mark.parametrize("structure", ["rows2", "rows4"])
def test_a_unit_that_is_gone_in_part_counts_with_the_rest(structure):
    score = torch.full((1, 4, 2), 0.5)
    score[0, 1, 0] = -1.0
    mask = one(score, SHARED[structure] / score.numel(), structure)
    assert mask[0, 0].tolist() == [False, True]


def test_equal_scores_give_the_share_too():
    mask = one(torch.ones(16, 8, 20), 0.7, "kernel")
    assert float((~mask).sum()) == pytest.approx(0.7 * mask.numel(), abs=8)


def test_the_share_is_the_nearest_one():
    """Five units of four: 7 of 20 coefficients are nearer to two units than to one."""
    mask = one(torch.rand(1, 4, 5), 0.35, "rows4")
    assert int((~mask).sum()) == 8


@pytest.mark.parametrize("structure", ["rows2", "rows4", "kernel"])
def test_what_must_go_goes_before_what_is_zero(structure):
    score = torch.zeros(4, 4, 10)
    score[:, :, 7:] = -1.0
    mask = one(score, 0.3, structure)
    assert bool(mask[:, :, :7].all()) and not bool(mask[:, :, 7:].any())
