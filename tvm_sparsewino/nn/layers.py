"""A convolution layer whose parameters live in the Winograd domain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..cook_toom import CookToom, cook_toom
from ..errors import ConfigError, ShapeError, WeightsError
from . import functional
from .operator import winograd_conv2d
from .padding import MODES, conv_padding, explicit_padding, four_sides

# Layout of what WinogradConv2d adds to a state_dict; changes with it.
STATE_VERSION = 1
# The same of a layer with winograd_relu, so that neither loads the other's checkpoint.
RELU_VERSION = 2


class WinogradConv2d(nn.Module):
    """Stride-1 convolution F(m x m, r x r) with coefficients trained in the Winograd domain.

    After Li, Park and Tang, "Enabling Sparse Winograd Convolution by Native Pruning"
    (arXiv:1702.08597): the alpha^2 coefficients per kernel, alpha = m + r - 1, are free
    parameters. Here they are stored scaled, ``Q = scale * U``, so that all coordinates affect the
    output comparably and ordinary learning rates suit all of them. The default scale is the
    coordinate's importance, with which that holds for white input; :meth:`set_scale` takes a scale
    measured on data.

    Takes [N, C, H, W] and returns [N, K, OH, OW], float32 or float64, in the memory format of
    the input.

    Args:
        in_channels: C.
        out_channels: K.
        kernel_size: r, taps per dimension.
        m: outputs per tile and dimension.
        padding: one size, (height, width) or (top, left, bottom, right).
        groups: channel groups.
        bias: whether to add a learned bias.
        padding_mode: one of :data:`.padding.MODES`.
        winograd_relu: whether negative transformed inputs count as zero: the Winograd-ReLU layer of
            X. Liu, J. Pool, S. Han and W. Dally, "Efficient Sparse-Winograd Convolutional Neural
            Networks" (arXiv:1802.06367), which replaces a ReLU before the layer.
        device, dtype: of the parameters; float32 or float64.

    Attributes:
        weight: Q, parameter [alpha^2, K, C/groups], coordinate i * alpha + j.
        bias: parameter [K] or None.
        scale: buffer that broadcasts to ``weight``; positive.
        mask: buffer, bool, of the shape of ``weight``: False where pruned; None before pruning.
        algorithm: the :class:`~tvm_sparsewino.cook_toom.CookToom` F(m, r).

    Raises:
        ConfigError: an argument has a value that is not listed here.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        m: int,
        padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        winograd_relu: bool = False,
    ) -> None:
        super().__init__()
        _check_channels(in_channels, out_channels, groups)
        if padding_mode not in MODES:
            raise ConfigError(f"padding_mode must be one of {MODES}, got {padding_mode!r}")
        self.algorithm: CookToom = cook_toom(m, kernel_size)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.padding = four_sides(padding)
        self.padding_mode = padding_mode
        self.winograd_relu = winograd_relu
        kind = {"device": device, "dtype": dtype}
        shape = (self.algorithm.coordinates, out_channels, in_channels // groups)
        self.weight = nn.Parameter(torch.empty(shape, **kind))
        self.bias = nn.Parameter(torch.empty(out_channels, **kind)) if bias else None
        if self.weight.dtype not in functional.DTYPES:
            raise ConfigError(f"dtype must be float32 or float64, got {self.weight.dtype}")
        self.register_buffer("scale", torch.empty((shape[0], 1, 1), **kind))
        self.register_buffer("mask", None)
        self.reset_parameters()

    @property
    def m(self) -> int:
        """Outputs per tile and dimension."""
        return self.algorithm.m

    @property
    def r(self) -> int:
        """Filter taps per dimension."""
        return self.algorithm.r

    @property
    def kernel_size(self) -> tuple[int, int]:
        """(r, r), as ``nn.Conv2d`` has it."""
        return self.r, self.r

    @property
    def winograd_weight(self) -> Tensor:
        """U, [alpha^2, K, C/groups]: the coefficients in use; pruned ones are exactly zero."""
        u = self.weight / self.scale
        return u if self.mask is None else torch.where(self.mask, u, 0.0)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, m: int) -> WinogradConv2d:
        """Make a layer with the function of ``conv``; parameters are copies, the scale is white.

        Coefficients are G w G^T in float64, rounded once to the layer's dtype.

        Raises:
            ConfigError: a stride, dilation or kernel that has no F(m, r).
        """
        r = conv.kernel_size[0]
        if conv.kernel_size != (r, r) or conv.stride != (1, 1) or conv.dilation != (1, 1):
            raise ConfigError(
                f"needs a square kernel, stride 1 and dilation 1, got kernel {conv.kernel_size}, "
                f"stride {conv.stride}, dilation {conv.dilation}"
            )
        layer = nn.utils.skip_init(
            cls,
            conv.in_channels,
            conv.out_channels,
            r,
            m,
            conv_padding(conv),
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        with torch.no_grad():
            layer.scale.copy_(_white_scale(layer.algorithm))
            layer.set_spatial_weight(conv.weight)
            if conv.bias is not None:
                layer.bias.copy_(conv.bias)
        return layer

    def reset_parameters(self) -> None:
        """Initialise like ``nn.Conv2d`` (uniform, by fan-in) and transform; the scale is white."""
        with torch.no_grad():
            self.scale.copy_(_white_scale(self.algorithm))
        fan_in = self.in_channels // self.groups * self.r**2
        bound = 1 / math.sqrt(fan_in)
        shape = (self.out_channels, self.in_channels // self.groups, self.r, self.r)
        self.set_spatial_weight(self.weight.new_empty(shape).uniform_(-bound, bound))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    @torch.no_grad()
    def set_spatial_weight(self, spatial: Tensor) -> None:
        """Set the coefficients to those of a spatial kernel [K, C/groups, r, r]."""
        g = torch.from_numpy(self.algorithm.arrays()[1]).to(spatial.device)
        u = torch.einsum("ip,kcpq,jq->ijkc", g, spatial.detach().double(), g)
        self.weight.copy_(u.reshape(self.weight.shape) * self.scale.double())

    @torch.no_grad()
    def set_scale(self, scale: Tensor) -> None:
        """Change the scale; U and the mask stay (U to one rounding of Q).

        Momentum kept by an optimiser refers to the old scale: set the scale before training.

        Args:
            scale: broadcasts to [alpha^2, K, C/groups].

        Raises:
            ShapeError: it does not broadcast.
            ConfigError: a value is not positive and finite.
        """
        scale = scale.detach().to(self.weight)
        self._check_scale(scale)
        exact = self.weight.double() / self.scale.double() * scale.double()
        self.weight.copy_(exact)
        self.scale = scale.clone()

    @torch.no_grad()
    def set_mask(self, mask: Tensor | None) -> None:
        """Set which coefficients stay (True); None removes the mask. Parameters keep their values.

        Raises:
            ShapeError: the mask is not bool with the shape of ``weight``.
        """
        if mask is not None:
            if mask.dtype != torch.bool or mask.shape != self.weight.shape:
                raise ShapeError(
                    f"a mask must be bool {list(self.weight.shape)}, got {mask.dtype} "
                    f"{list(mask.shape)}"
                )
            mask = mask.detach().to(self.weight.device, copy=True)
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, K, OH, OW]; under autocast in the dtype of the parameters.

        Raises:
            ShapeError: another number of channels or dtype, or a map smaller than the filter.
        """
        x, padding = explicit_padding(x, self.padding, self.padding_mode)
        args = (x, self.winograd_weight, self.bias, self.m, self.r)
        if torch.compiler.is_compiling():
            return winograd_conv2d(*args, list(padding), self.groups, self.winograd_relu)
        if torch.is_autocast_enabled(x.device.type):
            # The transforms cancel digits that half precision does not have.
            with torch.autocast(x.device.type, enabled=False):
                args = (x.to(self.weight.dtype), *args[1:])
                return functional.winograd_conv2d(*args, padding, self.groups, self.winograd_relu)
        return functional.winograd_conv2d(*args, padding, self.groups, self.winograd_relu)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        text = f"{self.in_channels}, {self.out_channels}, {self.algorithm}, padding={self.padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode!r}"
        if self.winograd_relu:
            text += ", winograd_relu=True"
        if self.mask is not None:
            text += f", density={self.mask.double().mean().item():.4f}"
        return text

    def get_extra_state(self) -> Tensor:
        """Version, m, r and the points as int64: a tensor, so that any file format can hold it."""
        return _extra_state(self)

    def set_extra_state(self, state: Any) -> None:
        """Nothing to restore: :meth:`_load_from_state_dict` has compared it already."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        where = prefix.rstrip(".") or type(self).__name__
        self._check_checkpoint(state_dict, prefix, where)
        for name in ("scale", "mask"):
            # Both may differ in shape from what this layer has at the moment; take them as they
            # come, and let the mask vanish if the checkpoint has none.
            value = state_dict.get(prefix + name)
            if value is not None:
                kind = self.weight.dtype if name == "scale" else torch.bool
                setattr(self, name, self.weight.new_empty(value.shape, dtype=kind))
            elif name == "mask":
                self.mask = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _check_checkpoint(self, state_dict: dict[str, Any], prefix: str, where: str) -> None:
        """Refuse a checkpoint of another layer before anything is changed.

        Raises:
            WeightsError: another algorithm, format version, shape, or an unusable scale or mask.
        """
        state = state_dict.get(prefix + "_extra_state")
        own = _extra_state(self)
        if state is not None and not (isinstance(state, Tensor) and torch.equal(state.cpu(), own)):
            raise WeightsError(
                f"{where}: expected {_describe(own)}, the checkpoint holds {_describe(state)}"
            )
        weight = state_dict.get(prefix + "weight")
        if weight is not None and weight.shape != self.weight.shape:
            raise WeightsError(
                f"{where}: expected Winograd-domain weights {list(self.weight.shape)} of "
                f"{self.algorithm}, got {list(weight.shape)}"
            )
        mask = state_dict.get(prefix + "mask")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != self.weight.shape):
            raise WeightsError(f"{where}: the mask is {mask.dtype} {list(mask.shape)}")
        scale = state_dict.get(prefix + "scale")
        if scale is not None:
            try:
                self._check_scale(scale)
            except (ShapeError, ConfigError) as error:
                raise WeightsError(f"{where}: {error}") from error

    def _check_scale(self, scale: Tensor) -> None:
        sizes = zip(scale.shape, self.weight.shape, strict=False)
        if scale.ndim != 3 or any(have not in (1, want) for have, want in sizes):
            raise ShapeError(
                f"a scale {list(scale.shape)} does not broadcast to {list(self.weight.shape)}"
            )
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise ConfigError("a scale must be positive and finite everywhere")


def _check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    sizes = (in_channels, out_channels, groups)
    if min(sizes) < 1 or in_channels % groups or out_channels % groups:
        raise ConfigError(
            f"{in_channels} input and {out_channels} output channels do not fit {groups} groups"
        )


def _white_scale(algorithm: CookToom) -> Tensor:
    return torch.from_numpy(algorithm.importance()).view(-1, 1, 1)


def _extra_state(layer: WinogradConv2d) -> Tensor:
    algorithm = layer.algorithm
    version = RELU_VERSION if layer.winograd_relu else STATE_VERSION
    points = [n for p in algorithm.points for n in (p.numerator, p.denominator)]
    return torch.from_numpy(np.array([version, algorithm.m, algorithm.r, *points]))


def _describe(state: Any) -> str:
    if not isinstance(state, Tensor) or state.ndim != 1 or len(state) < 3 or len(state) % 2 == 0:
        return "something else"
    version, m, r, *points = state.tolist()
    fractions = zip(points[::2], points[1::2], strict=True)
    text = [f"{n}/{d}" if d != 1 else f"{n}" for n, d in fractions]
    relu = ", with a ReLU of transformed inputs" if version == RELU_VERSION else ""
    return f"version {version} of F({m},{r}) at points {', '.join(text)}, inf{relu}"
