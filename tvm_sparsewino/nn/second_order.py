"""Prune a whole network at once, layer by layer, with exact compensation and no training.

Every layer gets its inputs from the layers already pruned and the outputs of the dense network as
its goal, so that later layers repair what earlier ones got wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import BUDGETS, PATTERNS
from ..errors import PruneError, in_context
from ..host import available_bytes
from .allocation import allocate, measure_harm
from .calibration import run_on, watching, winograd_layers
from .layers import WinogradConv2d
from .least_squares import LeastSquares, coefficients_of, needed_bytes
from .masks import choose_masks
from .sparse_solution import Keep, keep_largest

# An output channel's error counts by its effect on the network's output, within these bounds
# around the mean: a channel that seems useless on a few batches keeps a share.
_GAIN_BOUNDS = (0.1, 10.0)


def prune_network(
    model: nn.Module,
    batches: Sequence[Any],
    sparsity: float | Mapping[str, float],
    iterations: int = 100,
    progress: Callable[[str, float], None] | None = None,
    structure: str = "unstructured",
    budget: str = "layer",
) -> nn.Module:
    """Prune every Winograd layer of ``model`` in place and set the masks; returns the model.

    Per layer, one after the other in the order in which they run: choose what stays by ADMM on
    the output-space Hessian (:mod:`tvm_sparsewino.nn.least_squares`), solve for it exactly, and
    correct the bias by the mean error. A layer that runs several times in a pass is fitted to all
    of its calls.

    Args:
        model: a network with Winograd layers, in evaluation mode.
        batches: calibration inputs, or tuples of positional arguments; several thousand tiles in
            all, more than coefficients that stay in one output channel.
        sparsity: share of zeros, in [0, 1), for all layers or per layer's name.
        iterations: of ADMM.
        progress: called with a layer's name and the share of its output's power that is lost.
        structure: the pattern that zeros keep to, one of ``config.PATTERNS``.
        budget: "layer": every layer gets ``sparsity``; "global": all layers together, each the
            share that harms the network's output least (:mod:`tvm_sparsewino.nn.allocation`).

    Raises:
        PruneError: no Winograd layer or batch, a sparsity outside [0, 1) or missing for a layer,
            another structure or budget, budget "global" with sparsities per layer, a layer whose
            problem does not fit into memory, or one that never runs or whose input is always zero.
    """
    layers = winograd_layers(model)
    shares = _shares(sparsity, layers)
    if structure not in PATTERNS:
        raise PruneError(f"structure must be one of {PATTERNS}, got {structure!r}")
    if budget not in BUDGETS:
        raise PruneError(f"budget must be one of {BUDGETS}, got {budget!r}")
    if budget == "global" and isinstance(sparsity, Mapping):
        raise PruneError("budget 'global' takes one sparsity, not one per layer")
    if not batches:
        raise PruneError("no calibration batches")
    _check_memory(layers)
    dense = copy.deepcopy(model)
    gains = output_gains(dense, batches[0])
    if budget == "global" and sparsity:
        shares = _least_harm(dense, gains, batches, sparsity, structure)
    for name, gain in gains.items():
        layer = layers[name]
        watched = _Watched(model, dense, name, gain.calls)
        with in_context(f"layer {name!r}"):
            _prune_layer(watched, batches, shares[name], gain.gain, iterations, structure)
        if progress is not None:
            progress(name, _lost(watched, batches[:1]))
        layer.weight.grad = None
    return model


@dataclass(frozen=True)
class OutputGain:
    """What a layer's output channels do to the network's output.

    Attributes:
        gain: rms over positions of the derivative of ``<output, white noise>``, [K].
        calls: how often the layer runs in one pass.
    """

    gain: Tensor
    calls: int


def output_gains(model: nn.Module, batch: Any) -> dict[str, OutputGain]:
    """Effect of the output channels of every Winograd layer on the network's output.

    By layer, in the order in which they first run. A network that returns several tensors is
    taken with all of them that have a derivative.

    Raises:
        PruneError: a layer that the batch does not reach, or an output without a derivative.
    """
    layers = winograd_layers(model)
    names = {layer: name for name, layer in layers.items()}
    seen: dict[str, list[Tensor]] = {}

    def see(layer: nn.Module, _: Tensor, output: Tensor) -> Tensor:
        # The network may run in place on what follows, and its parameters may be frozen.
        own = output.clone() if output.requires_grad else output.detach().requires_grad_()
        seen.setdefault(names[layer], []).append(own)
        return own.clone()

    with torch.enable_grad(), watching(layers.values(), see):
        outputs = [x for x in _tensors(run_on(model, batch)) if x.requires_grad]
    missing = sorted(set(layers) - set(seen))
    if missing:
        raise PruneError(f"the calibration batches do not reach layers {missing}")
    if not outputs:
        raise PruneError("the network's output does not depend on any Winograd layer")
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(x.shape, generator=generator).to(x) for x in outputs]
    calls = [(name, call) for name, own in seen.items() for call in own]
    derivatives = torch.autograd.grad(outputs, [x for _, x in calls], noise, allow_unused=True)
    power: dict[str, Tensor] = {}
    for (name, call), derivative in zip(calls, derivatives, strict=True):
        none = call.new_zeros(call.shape[1])
        square = none if derivative is None else derivative.square().mean((0, 2, 3))
        power[name] = power.get(name, none) + square
    return {n: OutputGain((power[n] / len(own)).sqrt(), len(own)) for n, own in seen.items()}


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)


def _shares(sparsity: float | Mapping[str, float], layers: Mapping[str, Any]) -> dict[str, float]:
    if not isinstance(sparsity, Mapping):
        sparsity = dict.fromkeys(layers, sparsity)
    if set(sparsity) != set(layers):
        raise PruneError(f"sparsity must be given for layers {sorted(layers)}")
    for name, share in sparsity.items():
        if not 0 <= share < 1:
            raise PruneError(f"layer {name!r}: sparsity must be in [0, 1), got {share!r}")
    return dict(sparsity)


def _least_harm(
    dense: nn.Module,
    gains: Mapping[str, OutputGain],
    batches: Sequence[Any],
    sparsity: float,
    structure: str,
) -> dict[str, float]:
    """Shares of zeros per layer; the first half of the batches is enough to compare layers."""
    harms = {}
    for name, gain in gains.items():
        watched = _Watched(dense, dense, name, gain.calls)
        with in_context(f"layer {name!r}"):
            problem = watched.problem(batches[: -(-len(batches) // 2)])
            harms[name] = measure_harm(
                problem, _bounded(gain.gain), keep_in(watched.layer, structure)
            )
    return allocate(harms, sparsity)


def _bounded(gain: Tensor) -> Tensor:
    mean = gain.mean()
    return gain.clamp(_GAIN_BOUNDS[0] * mean, _GAIN_BOUNDS[1] * mean)


def _check_memory(layers: Mapping[str, WinogradConv2d]) -> None:
    """Refuse at once what would fail after hours."""
    available = available_bytes()
    for name, layer in layers.items():
        needed = needed_bytes(layer)
        if available is not None and needed > available:
            raise PruneError(
                f"layer {name!r}: pruning {layer.weight.shape[2]} input channels per group under "
                f"F({layer.m},{layer.r}) takes {needed / 1e9:.1f} GB of memory, of which "
                f"{available / 1e9:.1f} GB are free; a smaller tile takes less"
            )


@torch.no_grad()
def _prune_layer(
    watched: _Watched,
    batches: Sequence[Any],
    sparsity: float,
    gain: Tensor,
    iterations: int,
    structure: str,
) -> None:
    layer, problem = watched.layer, watched.problem(batches)
    relative = _bounded(gain / gain.mean().clamp_min(1e-30))
    keep, rows = keep_in(layer, structure), []
    for g, part in enumerate(relative.view(layer.groups, -1)):
        normalised = problem.normalised(g)
        rows.append(normalised.solve(normalised.choose(sparsity, iterations, part, keep)))
    u = coefficients_of(rows, layer)
    layer.weight.copy_(u * layer.scale)
    layer.set_mask(u != 0)
    if layer.bias is not None:
        layer.bias.add_(problem.mean_error(layer.winograd_weight))


def keep_in(layer: WinogradConv2d, structure: str) -> Keep:
    """What chooses the unknowns of one group of ``layer`` that stay, in a structure."""
    if structure == "unstructured":
        return keep_largest
    coordinates, _, cg = layer.weight.shape

    def keep(scores: Tensor, sparsity: float) -> Tensor:
        by_row = scores.view(coordinates, cg, -1).transpose(1, 2)
        mask = choose_masks({"": by_row}, {"": 1}, sparsity, structure, "layer")[""]
        return mask.transpose(1, 2).reshape(scores.shape)

    return keep


@dataclass(frozen=True)
class _Watched:
    """One layer in the network that is pruned and in the dense one."""

    model: nn.Module
    dense: nn.Module
    name: str
    calls: int

    @property
    def layer(self) -> WinogradConv2d:
        return self.model.get_submodule(self.name)

    def problem(self, batches: Sequence[Any]) -> LeastSquares:
        """The layer's inputs as they are, and the dense network's outputs without the bias."""
        layer = self.layer
        found = LeastSquares(layer)
        for batch in batches:
            for x, wanted in self.pairs(batch):
                found.add(x, wanted if layer.bias is None else wanted - layer.bias.view(-1, 1, 1))
        return found

    def pairs(self, batch: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Per call: the layer's input in the pruned network, its output in the dense one."""
        have, want = self._at(self.model, batch), self._at(self.dense, batch)
        if len(have) != len(want):
            raise PruneError(
                f"it runs {len(have)} times in the pruned network and {len(want)} times, that is "
                f"{'more' if len(want) > len(have) else 'less'} often, in the dense network"
            )
        for (x, _), (_, wanted) in zip(have, want, strict=True):
            yield x, wanted

    def outputs(self, batch: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Per call: the layer's output in the pruned network and in the dense one."""
        for x, wanted in self.pairs(batch):
            yield self.layer(x), wanted

    @torch.no_grad()
    def _at(self, model: nn.Module, batch: Any) -> list[tuple[Tensor, Tensor]]:
        """Inputs and outputs of the layer when ``model`` runs on ``batch``, as far as needed."""
        found: list[tuple[Tensor, Tensor]] = []

        def see(_: nn.Module, x: Tensor, output: Tensor) -> None:
            # Copies: what follows may work in place, if anything follows.
            last = len(found) + 1 == self.calls
            found.append((x, output) if last else (x.clone(), output.clone()))
            if last:
                raise _Reached

        with watching([model.get_submodule(self.name)], see):
            try:
                run_on(model, batch)
            except _Reached:
                return found
        if not found:
            raise PruneError("a calibration batch does not reach it")
        return found


class _Reached(Exception):
    """Ends a pass when the layer that was waited for has run."""


@torch.no_grad()
def _lost(watched: _Watched, batches: Sequence[Any]) -> float:
    lost = power = 0.0
    for batch in batches:
        for have, want in watched.outputs(batch):
            spread = want - want.mean((0, 2, 3), keepdim=True)
            lost, power = lost + (have - want).square().sum(), power + spread.square().sum()
    return float(lost / power.clamp_min(1e-30))
