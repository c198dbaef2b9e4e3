"""Prune a whole network in one go, layer by layer, with exact compensation; no training.

Every layer gets its inputs from the layers already pruned and the outputs of the dense network as
its goal, so that later layers repair what earlier ones got wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PruneError, in_context
from .calibration import run_on, watching, winograd_layers
from .layers import WinogradConv2d
from .least_squares import LeastSquares, coefficients_of

# An output channel's error counts by its effect on the network's output, within these bounds
# around the mean: a channel that seems useless on a few batches keeps a share.
_GAIN_BOUNDS = (0.1, 10.0)


def prune_network(
    model: nn.Module,
    batches: Sequence[Any],
    sparsity: float | Mapping[str, float],
    iterations: int = 100,
    progress: Callable[[str, float], None] | None = None,
) -> nn.Module:
    """Prune every Winograd layer of ``model`` in place and set the masks; returns the model.

    Per layer, one after the other in the order in which they run: choose what stays by ADMM on
    the output-space Hessian (:mod:`tvm_sparsewino.nn.least_squares`), solve for it exactly, and
    correct the bias by the mean error.

    Args:
        model: a network with Winograd layers, each used once, in evaluation mode.
        batches: calibration inputs, or tuples of positional arguments; several thousand tiles in
            all, more than coefficients that stay in one output channel.
        sparsity: share of zeros, in [0, 1), for all layers or per layer's name.
        iterations: of ADMM.
        progress: called with a layer's name and the share of its output's power that is lost.

    Raises:
        PruneError: no Winograd layer or batch, a sparsity outside [0, 1) or missing for a layer,
            or a layer that is used several times, never, or whose input is always zero.
    """
    layers = winograd_layers(model)
    shares = _shares(sparsity, layers)
    if not batches:
        raise PruneError("no calibration batches")
    dense = copy.deepcopy(model)
    gains = output_gains(dense, batches[0])
    for name in gains:
        layer = layers[name]
        with in_context(f"layer {name!r}"):
            _prune_layer(model, dense, name, batches, shares[name], gains[name], iterations)
        if progress is not None:
            progress(name, _lost(model, dense, name, batches[:1]))
        layer.weight.grad = None
    return model


def output_gains(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Effect of each output channel of every Winograd layer on the network's output.

    The rms over positions of the derivative of ``<output, white noise>``, by layer in the order
    in which they run, [K].

    Raises:
        PruneError: a layer that the batch does not reach, or reaches several times, or an output
            that is no tensor.
    """
    layers = winograd_layers(model)
    names = {layer: name for name, layer in layers.items()}
    seen: dict[str, Tensor] = {}
    twice: set[str] = set()

    def see(layer: nn.Module, _: Tensor, output: Tensor) -> None:
        if names[layer] in seen:
            twice.add(names[layer])
        seen[names[layer]] = output

    with torch.enable_grad(), watching(layers.values(), see):
        output = run_on(model, batch)
    if twice:
        raise PruneError(f"layers {sorted(twice)} run several times in one pass")
    missing = sorted(set(layers) - set(seen))
    if missing:
        raise PruneError(f"the calibration batches do not reach layers {missing}")
    if not isinstance(output, Tensor):
        raise PruneError(f"expected the network to return a tensor, got {type(output).__name__}")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(output.shape, generator=generator).to(output)
    derivatives = torch.autograd.grad(output, list(seen.values()), noise)
    return {n: d.square().mean((0, 2, 3)).sqrt() for n, d in zip(seen, derivatives, strict=True)}


def _shares(sparsity: float | Mapping[str, float], layers: Mapping[str, Any]) -> dict[str, float]:
    if not isinstance(sparsity, Mapping):
        sparsity = dict.fromkeys(layers, sparsity)
    if set(sparsity) != set(layers):
        raise PruneError(f"sparsity must be given for layers {sorted(layers)}")
    for name, share in sparsity.items():
        if not 0 <= share < 1:
            raise PruneError(f"layer {name!r}: sparsity must be in [0, 1), got {share!r}")
    return dict(sparsity)


@torch.no_grad()
def _prune_layer(
    model: nn.Module,
    dense: nn.Module,
    name: str,
    batches: Sequence[Any],
    sparsity: float,
    gain: Tensor,
    iterations: int,
) -> None:
    layer: WinogradConv2d = model.get_submodule(name)
    problem = LeastSquares(layer)
    for x, wanted in _pairs(model, dense, name, batches):
        problem.add(x, wanted if layer.bias is None else wanted - layer.bias.view(-1, 1, 1))
    relative = (gain / gain.mean().clamp_min(1e-30)).clamp(*_GAIN_BOUNDS)
    rows = []
    for g, part in enumerate(relative.view(layer.groups, -1)):
        normalised = problem.normalised(g)
        rows.append(normalised.solve(normalised.choose(sparsity, iterations, part)))
    u = coefficients_of(rows, layer)
    layer.weight.copy_(u * layer.scale)
    layer.set_mask(u != 0)
    if layer.bias is not None:
        layer.bias.add_(problem.mean_error(layer.winograd_weight))


def _pairs(model: nn.Module, dense: nn.Module, name: str, batches: Sequence[Any]) -> Any:
    """Per batch: the layer's input in the pruned network, and its output in the dense one."""
    for batch in batches:
        yield _at(model, name, batch)[0], _at(dense, name, batch)[1]


def _lost(model: nn.Module, dense: nn.Module, name: str, batches: Sequence[Any]) -> float:
    with torch.no_grad():
        have = torch.cat([_at(model, name, batch)[1] for batch in batches])
        want = torch.cat([_at(dense, name, batch)[1] for batch in batches])
    spread = (want - want.mean((0, 2, 3), keepdim=True)).square().sum()
    return float((have - want).square().sum() / spread.clamp_min(1e-30))


class _Reached(Exception):
    """Ends a pass when the layer that was waited for has run."""


@torch.no_grad()
def _at(model: nn.Module, name: str, batch: Any) -> tuple[Tensor, Tensor]:
    """Input and output of one layer when ``model`` runs on ``batch``, as far as needed."""
    found: list[Tensor] = []

    def see(_: nn.Module, x: Tensor, output: Tensor) -> None:
        found.extend((x, output))
        raise _Reached

    with watching([model.get_submodule(name)], see):
        try:
            run_on(model, batch)
        except _Reached:
            return found[0], found[1]
    raise PruneError("a calibration batch does not reach it")
