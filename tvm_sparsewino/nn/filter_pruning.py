"""Remove whole filters, their feature maps and everything that reads them from a network.

H. Li, A. Kadav, I. Durdanovic, H. Samet, H. Graf, "Pruning Filters for Efficient ConvNets" (ICLR
2017, arXiv:1608.08710): the filters of least L1 norm in a layer are removed with the channels they
make. Where a shortcut adds the outputs of several layers their filters go together, by the sum of
their norms. Native pruning can follow: convert before or after.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import PruneError
from .channels import CONVOLUTIONS, NORMS, ChannelMap, channel_map
from .layers import WinogradConv2d


@dataclass(frozen=True)
class FilterPlan:
    """What of every layer stays.

    Attributes:
        inputs, outputs: by module's name, bool [C] and [K]: the channels that stay.
        removed: by convolution's name, how many of its filters go.
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    removed: dict[str, int]


def plan_filters(
    model: nn.Module, share: float | Mapping[str, float], example: tuple[Any, ...]
) -> FilterPlan:
    """Choose the filters that go: in each layer those of least L1 norm.

    Layers whose outputs are tied by sums are one layer here; each norm counts in units of its
    layer's mean. Winograd layers are taken by the L1 norm of their parameters. Fixed stay: inputs
    and outputs of the network, rows of linear layers, grouped convolutions that are not depthwise,
    and whatever goes through operators that are not known to treat channels one by one. At least
    one filter of a layer stays.

    Args:
        model: a network that torch.fx can trace, of convolutions, Winograd layers, batch
            normalisation, linear layers and what leaves channels apart (activations with f(0) = 0,
            pooling, sums, concatenation, flattening).
        share: of filters that go, in [0, 1), for all layers or for those that are named.
        example: positional arguments of a forward.

    Raises:
        PruneError: a share outside [0, 1), a name that is no convolution, or a network that cannot
            be traced.
    """
    channels = channel_map(model, example)
    convs = {n: x for n, x in model.named_modules() if n in channels.outputs and _is_conv(x)}
    shares = share if isinstance(share, Mapping) else dict.fromkeys(convs, share)
    unknown = sorted(set(shares) - set(convs))
    if unknown:
        raise PruneError(f"{unknown} are no convolutions of the network, there are {list(convs)}")
    wrong = {name: value for name, value in shares.items() if not 0 <= value < 1}
    if wrong:
        raise PruneError(f"shares must be in [0, 1), got {wrong}")
    gone: set[int] = set()
    for names, scores in _tied_layers(channels, convs):
        wanted = max(shares.get(name, 0.0) for name in names)
        free = sorted((s, root) for root, s in scores.items() if not channels.is_fixed(root))
        count = min(round(wanted * len(scores)), len(free), len(scores) - 1)
        gone.update(root for _, root in free[:count])

    def stays(values: np.ndarray) -> np.ndarray:
        return ~np.isin(channels.roots(values), list(gone))

    inputs = {name: stays(values) for name, values in channels.inputs.items()}
    outputs = {name: stays(values) for name, values in channels.outputs.items()}
    return FilterPlan(inputs, outputs, {n: int((~outputs[n]).sum()) for n in convs})


def prune_filters(
    model: nn.Module, share: float | Mapping[str, float], example: tuple[Any, ...]
) -> nn.Module:
    """A copy of ``model`` without the filters of least L1 norm: :func:`plan_filters`, carried out.

    Raises:
        PruneError: as :func:`plan_filters`.
    """
    return without_filters(model, plan_filters(model, share, example))


def without_filters(model: nn.Module, plan: FilterPlan) -> nn.Module:
    """A copy of ``model`` whose layers have the channels that ``plan`` keeps, and no others."""
    model = copy.deepcopy(model)
    for name, outputs in plan.outputs.items():
        kept_in, kept_out = (torch.from_numpy(x) for x in (plan.inputs[name], outputs))
        if not (bool(kept_in.all()) and bool(kept_out.all())):
            _shrink(model.get_submodule(name), kept_in, kept_out)
    return model


def _is_conv(module: nn.Module) -> bool:
    depthwise = isinstance(module, CONVOLUTIONS) and module.groups == module.in_channels > 1
    return isinstance(module, CONVOLUTIONS) and not depthwise


def _tied_layers(
    channels: ChannelMap, convs: Mapping[str, nn.Module]
) -> list[tuple[list[str], dict[int, float]]]:
    """Layers that share channels, each set with the score of every channel they have."""
    scores: dict[int, float] = defaultdict(float)
    makers: dict[int, set[str]] = defaultdict(set)
    for name, module in convs.items():
        norms = _norms(module)
        norms = norms / norms.mean() if norms.any() else norms
        for root, norm in zip(channels.roots(channels.outputs[name]), norms, strict=True):
            scores[int(root)] += float(norm)
            makers[int(root)].add(name)
    sets: dict[frozenset[str], dict[int, float]] = defaultdict(dict)
    for root, names in makers.items():
        sets[frozenset(names)][root] = scores[root]
    return [(sorted(names), found) for names, found in sets.items()]


def _norms(module: nn.Module) -> np.ndarray:
    """L1 norm of every filter."""
    dims = (0, 2) if isinstance(module, WinogradConv2d) else (1, 2, 3)
    return module.weight.detach().abs().sum(dims).double().cpu().numpy()


def _shrink(module: nn.Module, kept_in: Tensor, kept_out: Tensor) -> None:
    """Take the channels that go out of one module, in place."""
    if isinstance(module, CONVOLUTIONS):
        _shrink_convolution(module, kept_in, kept_out)
    elif type(module) is nn.Linear:
        _set(module, "weight", module.weight[:, kept_in.to(module.weight.device)])
        module.in_features = int(kept_in.sum())
    elif type(module) in NORMS:
        for name in ("weight", "bias", "running_mean", "running_var"):
            if getattr(module, name) is not None:
                _set(module, name, getattr(module, name)[kept_out.to(getattr(module, name).device)])
        module.num_features = int(kept_out.sum())
    elif type(module) is nn.PReLU and module.num_parameters > 1:
        _set(module, "weight", module.weight[kept_out.to(module.weight.device)])
        module.num_parameters = int(kept_out.sum())


def _shrink_convolution(module: Any, kept_in: Tensor, kept_out: Tensor) -> None:
    kept_in, kept_out = (x.to(module.weight.device) for x in (kept_in, kept_out))
    depthwise = module.groups == module.in_channels == module.out_channels and module.groups > 1
    if isinstance(module, WinogradConv2d):
        for name in ("weight", "scale", "mask"):
            value = getattr(module, name)
            if value is None:
                continue
            value = value[:, kept_out] if value.shape[1] > 1 else value
            inner = value.shape[2] > 1 and not depthwise
            _set(module, name, value[:, :, kept_in] if inner else value)
    else:
        weight = module.weight[kept_out]
        _set(module, "weight", weight if depthwise else weight[:, kept_in])
    if module.bias is not None:
        _set(module, "bias", module.bias[kept_out])
    module.in_channels, module.out_channels = int(kept_in.sum()), int(kept_out.sum())
    module.groups = module.in_channels if depthwise else module.groups


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter by one of another size, or a buffer."""
    old = getattr(module, name)
    value = value.detach().clone()
    if isinstance(old, nn.Parameter):
        value = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(module, name, value)
