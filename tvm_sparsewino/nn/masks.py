"""Masks that follow a structure: which coefficients of all layers stay, given their scores.

A structure joins coefficients to *units* that stay or go as one. A unit counts with the mean square
of its coefficients' scores: what its removal adds to the squared error, for each zero it gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..structure import shared_rows
from .sparse_solution import keep_largest


def choose_masks(
    scores: Mapping[str, Tensor],
    groups: Mapping[str, int],
    sparsity: float,
    structure: str,
    budget: str,
) -> dict[str, Tensor]:
    """What stays of every layer, bool like its scores.

    Args:
        scores: by layer, [alpha^2, K, C/groups]; below zero where a coefficient must go before
            all others.
        groups: channel groups by layer.
        sparsity: share of coefficients that go, met as closely as whole units allow.
        structure: one of ``config.PATTERNS``. Rows of "balanced" keep one coefficient at least.
        budget: "layer": the same sparsity everywhere; "global": scores are compared over all
            layers, each in units of its layer's rms score.
    """
    if budget == "layer":
        return {n: _choose([x], [groups[n]], sparsity, structure)[0] for n, x in scores.items()}
    relative = [_relative(x) for x in scores.values()]
    masks = _choose(relative, [groups[name] for name in scores], sparsity, structure)
    return dict(zip(scores, masks, strict=True))


def _choose(
    scores: Sequence[Tensor], groups: Sequence[int], sparsity: float, structure: str
) -> list[Tensor]:
    """Masks of layers that share one budget."""
    if structure == "balanced":
        return [_keep_per_row(score, sparsity) for score in scores]
    if structure == "unstructured":
        kept = keep_largest(torch.cat([score.flatten() for score in scores]), sparsity)
        parts = kept.split([score.numel() for score in scores])
        return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]
    units, sizes = zip(
        *(_units(x, g, structure) for x, g in zip(scores, groups, strict=True)), strict=True
    )
    kept = _keep_units(
        torch.cat([x.flatten() for x in units]), torch.cat([x.flatten() for x in sizes]), sparsity
    )
    parts = kept.split([x.numel() for x in units])
    return [
        _spread(part.view_as(unit), score, g, structure)
        for part, unit, score, g in zip(parts, units, scores, groups, strict=True)
    ]


def _relative(score: Tensor) -> Tensor:
    # The rms is over what is alive: scores below zero mark what must not come back.
    rms = score.clamp_min(0).square().mean().sqrt().clamp_min(1e-30)
    return torch.where(score < 0, score, score / rms)


def _keep_per_row(score: Tensor, sparsity: float) -> Tensor:
    """The largest of every row, equally many, at least one: a row of zeros computes nothing."""
    channels = score.shape[2]
    count = max(1, channels - round(sparsity * channels))
    kept = torch.topk(score, count, dim=2, sorted=False).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter_(2, kept, True)


def _keep_units(scores: Tensor, sizes: Tensor, sparsity: float) -> Tensor:
    """True for all but the smallest units that hold about the share ``sparsity`` of all."""
    order = torch.argsort(scores, stable=True)
    ordered = sizes[order]
    # A unit on the border goes if that is nearer to the share than keeping it.
    gone = 2 * ordered.cumsum(0) - ordered <= int(2 * sparsity * int(sizes.sum()))
    kept = torch.empty_like(gone)
    kept[order] = ~gone
    return kept


def _units(score: Tensor, groups: int, structure: str) -> tuple[Tensor, Tensor]:
    """Mean square of every unit, -1 where none of it may stay, and its number of coefficients."""
    total = _pool(score.clamp_min(0).square(), groups, structure)
    sizes = _pool(torch.ones_like(score), groups, structure)
    alive = _pool((score >= 0).to(score), groups, structure) > 0
    return torch.where(alive, total / sizes, -1.0), sizes.long()


def _pool(values: Tensor, groups: int, structure: str) -> Tensor:
    """Sums over units, in any shape that :func:`_spread` takes back."""
    if structure == "kernel":
        return values.sum(0)
    if structure == "outputs":
        return values.sum((0, 2))[:, None]
    if structure == "inputs":
        return values.view(values.shape[0], groups, -1, values.shape[2]).sum((0, 2))
    width = shared_rows(structure)
    coordinates, k, channels = values.shape
    rows = values.reshape(coordinates * groups, k // groups, channels)
    rows = functional.pad(rows, (0, 0, 0, -(k // groups) % width))
    return rows.view(len(rows), -1, width, channels).sum(2)


def _spread(units: Tensor, like: Tensor, groups: int, structure: str) -> Tensor:
    """The value of its unit for every coefficient: the inverse of :func:`_pool`."""
    if structure in ("kernel", "outputs"):
        return units.expand_as(like).contiguous()
    if structure == "inputs":
        by_group = units[:, None].expand(groups, like.shape[1] // groups, like.shape[2])
        return by_group.reshape(like.shape[1:]).expand_as(like).contiguous()
    rows = units.repeat_interleave(shared_rows(structure), dim=1)
    return rows[:, : like.shape[1] // groups].reshape(like.shape)
