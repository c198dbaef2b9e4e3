"""Replace the convolutions of a network by Winograd layers with the same function."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..config import ConvShape
from ..cook_toom import cook_toom
from ..cost import Core, predict
from ..cost_quantities import CORES
from ..errors import ConfigError
from .functional import DTYPES
from .layers import WinogradConv2d
from .modes import evaluation
from .padding import MODES

TILES = (2, 4, 6)
KERNELS = (3, 5, 7)

# "auto" takes no tile whose float32 rounding is expected to exceed this share of the output's
# maximum: it is the tolerance of "the same function".
_MAX_ERROR = 1e-5
# What is asked for by name may lose more, up to here: F(6,5) and F(4,7) do, F(6,7) loses too much.
_MAX_ASKED = 2e-4


@dataclass(frozen=True)
class Conversion:
    """What became of one convolution.

    Attributes:
        name: its name in the model, "" if it is the model; the first one if it has several.
        m: outputs per tile and dimension, 0 if it was left.
        reason: why it was left, or why this m.
    """

    name: str
    m: int
    reason: str

    @property
    def converted(self) -> bool:
        """Whether it became a Winograd layer."""
        return self.m > 0


def convert(
    model: nn.Module,
    tile: str | int | Mapping[int, int] = "auto",
    example: Any = None,
    *,
    sparsity: float = 0.9,
    lanes: int = 8,
) -> nn.Module:
    """Copy ``model`` with every eligible ``nn.Conv2d`` replaced by a :class:`WinogradConv2d`.

    The copy computes the same function, rounding aside, and ``model`` is not changed. Eligible are
    convolutions with stride 1, dilation 1 and a 3x3, 5x5 or 7x7 kernel, in float32 or float64, with
    any padding, padding mode, groups and bias. A convolution is left, and the reason recorded, if
    replacing it could change what the model does: subclasses, parametrised or hooked modules, and
    weights that other modules use, too. Training flags, devices, dtypes, ``requires_grad`` and the
    sharing of modules are preserved.

    The attribute ``conversion`` of the copy is a list of :class:`Conversion`, one per convolution.

    Args:
        model: any module.
        tile: m, the outputs per tile and dimension: 2, 4 or 6; or a dict by kernel size, such as
            ``{3: 4, 5: 4, 7: 2}``, which leaves kernels of other sizes; or "auto". "auto" takes for
            each layer the tile that the compiler's cost model predicts to be fastest at the map
            sizes that ``example`` gives, once pruned to ``sparsity``, among the tiles whose float32
            rounding is expected below 1e-5 of the output's maximum (2 and 4; for 7x7 kernels 2). It
            leaves depthwise convolutions.
        example: for "auto": the input, or a tuple of positional or a dict of keyword arguments.
            The copy runs on it once, in evaluation mode and without gradients.
        sparsity: for "auto": the share of zeros that pruning will reach, in [0, 1].
        lanes: for "auto": float32 lanes of the CPU that will run the model: 4 (SSE, NEON),
            8 (AVX2) or 16 (AVX-512).

    Raises:
        ConfigError: another tile, sparsity or number of lanes, "auto" without an example, or a
            model that is scripted or that Python cannot copy.
    """
    tiles = _tiles(tile)
    if tile == "auto" and example is None:
        raise ConfigError('tile="auto" needs example=, an input that shows the map sizes')
    if not 0 <= sparsity <= 1:
        raise ConfigError(f"sparsity must be in [0, 1], got {sparsity!r}")
    if lanes not in CORES:
        raise ConfigError(f"lanes must be one of {tuple(CORES)}, got {lanes!r}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError("a scripted model cannot be converted; convert the original module")
    model = _copied(model)
    sizes = _output_sizes(model, example) if tile == "auto" else None
    owners = _parameter_owners(model)
    records, replacements = [], {}
    for name, conv in _convolutions(model):
        why_left = _why_left(conv, owners)
        if why_left is not None:
            m, reason = 0, why_left
        elif sizes is None:
            m, reason = _asked_tile(tiles, conv.kernel_size[0])
        else:
            m, reason = _auto_tile(conv, sizes, sparsity, CORES[lanes])
        if m:
            replacements[conv] = _converted(conv, m)
        records.append(Conversion(name, m, reason))
    earlier = [r for r in getattr(model, "conversion", ()) if r.converted]
    model = _replace(model, replacements)
    model.conversion = earlier + records
    return model


def _tiles(tile: str | int | Mapping[int, int]) -> dict[int, int]:
    """Outputs per tile by kernel size; nothing for "auto"."""
    if tile == "auto":
        return {}
    tiles = tile if isinstance(tile, Mapping) else dict.fromkeys(KERNELS, tile)
    if any(isinstance(m, bool) or m not in TILES for m in tiles.values()):
        raise ConfigError(f'tile must be "auto" or one of {TILES}, got {tile!r}')
    if not set(tiles) <= set(KERNELS):
        raise ConfigError(f"tile by kernel size knows sizes {KERNELS}, got {tile!r}")
    return dict(tiles)


def _asked_tile(tiles: Mapping[int, int], r: int) -> tuple[int, str]:
    """The tile that was asked for kernels of r taps, or 0, and why."""
    if r not in tiles:
        return 0, f"no tile is given for {r}x{r} kernels"
    error = cook_toom(tiles[r], r).error_estimate()
    if error > _MAX_ASKED:
        return 0, f"F({tiles[r]},{r}) would be off by {error:.0e} of the largest output"
    return tiles[r], "as asked"


def _auto_tile(
    conv: nn.Conv2d,
    sizes: Mapping[nn.Module, list[tuple[int, int, int]]],
    sparsity: float,
    core: Core,
) -> tuple[int, str]:
    """The tile that is predicted to be fastest at the sizes that a layer was called with, or 0."""
    if conv not in sizes:
        return 0, "the example does not reach it"
    if conv.groups == conv.in_channels > 1:
        return 0, "depthwise: transforms would cost more than the convolution"
    return _best_tile(conv, sizes[conv], sparsity, core)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the model's own attributes raise
        raise ConfigError(f"{type(model).__name__} cannot be copied: {error}") from error


def _convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(n, x) for n, x in model.named_modules() if isinstance(x, nn.Conv2d)]


def _parameter_owners(model: nn.Module) -> dict[Tensor, int]:
    """How many modules hold each parameter."""
    owners = defaultdict(int)
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[parameter] += 1
    return owners


def _why_left(conv: nn.Conv2d, owners: Mapping[Tensor, int]) -> str | None:
    """Why a convolution cannot be replaced, or None."""
    reason = _left_for_identity(conv) or _left_for_geometry(conv)
    if reason is None and any(owners[p] > 1 for p in conv.parameters()):
        reason = "its parameters are shared with another module"
    return reason


def _left_for_identity(conv: nn.Conv2d) -> str | None:
    own = {"weight", "bias"}
    reasons = (
        ("parametrized", is_parametrized(conv)),
        (f"{type(conv).__name__} is a subclass of Conv2d", type(conv) is not nn.Conv2d),
        ("has hooks (weight_norm and torch's own pruning are hooks too)", _has_hooks(conv)),
        ("its forward has been replaced", "forward" in vars(conv)),
        (
            "has parameters, buffers or modules of its own",
            set(conv._parameters) != own or conv._buffers or conv._modules,
        ),
    )
    return next((reason for reason, applies in reasons if applies), None)


def _left_for_geometry(conv: nn.Conv2d) -> str | None:
    kernel = conv.kernel_size
    if conv.stride != (1, 1):
        return f"stride {conv.stride}"
    if conv.dilation != (1, 1):
        return f"dilation {conv.dilation}"
    if kernel[0] != kernel[1] or kernel[0] not in KERNELS:
        return f"kernel {kernel[0]}x{kernel[1]}"
    if conv.weight.dtype not in DTYPES:
        return f"dtype {conv.weight.dtype}"
    if conv.padding_mode not in MODES:
        return f"padding_mode {conv.padding_mode!r}"
    return None


def _has_hooks(module: nn.Module) -> bool:
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_state_dict_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
    )
    return any(getattr(module, kind) for kind in kinds)


def _output_sizes(model: nn.Module, example: Any) -> dict[nn.Module, list[tuple[int, int, int]]]:
    """Images, height and width of every convolution's outputs on ``example``."""
    sizes = defaultdict(list)

    def note(conv: nn.Module, inputs: tuple, output: Tensor) -> None:
        images = output.shape[0] if output.ndim == 4 else 1
        sizes[conv].append((images, *output.shape[-2:]))

    hooks = [conv.register_forward_hook(note) for _, conv in _convolutions(model)]
    with evaluation(model), torch.no_grad():
        try:
            if isinstance(example, Mapping):
                model(**example)
            else:
                model(*(example if isinstance(example, tuple) else (example,)))
        finally:
            for hook in hooks:
                hook.remove()
    return dict(sizes)


def _best_tile(
    conv: nn.Conv2d, sizes: list[tuple[int, int, int]], sparsity: float, core: Core
) -> tuple[int, str]:
    """The tile of least predicted cost over all calls of the layer, and what to say about it."""
    r = conv.kernel_size[0]
    fits = [m for m in TILES if cook_toom(m, r).error_estimate() <= _MAX_ERROR]
    cycles = {m: sum(_cycles(conv, size, m, sparsity, core) for size in sizes) for m in fits}
    best = min(fits, key=lambda m: (cycles[m], m))
    maps = ", ".join(f"{h}x{w}" for _, h, w in dict.fromkeys(sizes))
    others = ", ".join(f"F({m},{r}) {cycles[m] / cycles[best]:.2f}x" for m in fits if m != best)
    least = f"{cycles[best] / 1e6:.3g} Mcycles"
    return best, f"predicted at {least} with {sparsity:.0%} zeros on {maps}; {others}"


def _cycles(
    conv: nn.Conv2d, size: tuple[int, int, int], m: int, sparsity: float, core: Core
) -> float:
    """What the compiler predicts for the better of its kernels."""
    (n, h, w), r = size, conv.kernel_size[0]
    channels, filters = conv.in_channels, conv.out_channels
    shape = ConvShape(max(n, 1), channels, h + r - 1, w + r - 1, filters, r, groups=conv.groups)
    algorithms = ("sparse_winograd", "dense_winograd")
    return min(predict(shape, a, m, 1 - sparsity, core).cycles for a in algorithms)


def _converted(conv: nn.Conv2d, m: int) -> WinogradConv2d:
    layer = WinogradConv2d.from_conv(conv, m)
    layer.train(conv.training)
    layer.weight.requires_grad_(conv.weight.requires_grad)
    if conv.bias is not None:
        layer.bias.requires_grad_(conv.bias.requires_grad)
    return layer


def _replace(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put the new modules wherever an old one is, under all of its names."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                parent._modules[name] = replacements[child]
    return replacements.get(model, model)
