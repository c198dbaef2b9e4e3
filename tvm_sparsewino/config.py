"""Every option users can set and every decision the planner takes, as frozen, checked dataclasses.

All of them convert to and from plain JSON, which holds ``VERSION``; reading checks it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import ConfigError
from .pool_window import HALVING, Window, checked_window

VERSION = 1

ALGORITHMS = ("sparse_winograd", "dense_winograd", "sparse_direct", "dense_direct", "left")
ACTIVATIONS = ("none", "relu", "relu6", "leaky_relu", "prelu")
LANES = (0, 4, 8, 16)
_OPTIONS = {"lanes": ALGORITHMS[:3], "copied": ALGORITHMS[2:3], "winograd_relu": ALGORITHMS[:2]}
POOLS = ("none", "max", "average")
CRITERIA = ("activation", "white", "authors")
BUDGETS = ("layer", "global")
STRUCTURES = ("unstructured", "balanced", "rows2", "rows4", "kernel")
# Patterns that pruning can keep the zeros to; kernels exploit only those above.
PATTERNS = (*STRUCTURES, "outputs", "inputs")
PARAMETERS = ("kept", "plain", "gradient", "white")

Self = TypeVar("Self", bound="_Checked")


class _Checked:
    """JSON round trip shared by the dataclasses below."""

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values, with the format's version."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls: type[Self], data: dict[str, Any] | str) -> Self:
        """Read what :meth:`to_json` made.

        Raises:
            ConfigError: no JSON object, another version, unknown or missing fields, or a value
                out of range.
        """
        data = _json_object(cls.__name__, data)
        version = data.pop("version", None)
        if version != VERSION:
            raise ConfigError(f"{cls.__name__}: version {version!r}, this build reads {VERSION}")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - set(fields))
        if unknown:
            raise ConfigError(f"{cls.__name__}: unknown fields {unknown}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from error


def _json_object(kind: str, data: Any) -> dict[str, Any]:
    """A copy of the object that ``data`` is, or that it is the text of."""
    try:
        data = json.loads(data) if isinstance(data, str) else data
    except json.JSONDecodeError as error:
        raise ConfigError(f"{kind}: expected a JSON object, got {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{kind}: expected a JSON object, got {data!r}")
    return dict(data)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _check_one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    _check(value in known, f"{name} must be one of {known}, got {value!r}")


def _pair(name: str, value: Any) -> tuple[int, int]:
    """A positive integer, or two of them, as two."""
    pair = (value, value) if isinstance(value, int) else value
    ok = isinstance(pair, tuple) and len(pair) == len(("y", "x"))
    ok = ok and all(isinstance(v, int) and v >= 1 for v in pair)
    _check(ok, f"{name} must be one or two numbers >= 1, got {value!r}")
    return pair


@dataclass(frozen=True)
class CompileConfig(_Checked):
    """How a network is compiled.

    Attributes:
        winograd_for_dense: allow Winograd kernels for plain 3x3 and 5x5 stride-1 convolutions even
            if their weights have no zeros. Results are rounded differently than by a direct kernel.
        max_tile: the largest m, 2, 4 or 6, that a layer with spatial weights may get.
        min_channels: convolutions with fewer input or output channels are left to TVM's kernels.
        panel_vectors: vectors of tiles per panel of Winograd kernels, 1 to 16; 0 lets the planner
            choose.

    Raises:
        ConfigError: a value out of range.
    """

    winograd_for_dense: bool = True
    max_tile: int = 4
    min_channels: int = 1
    panel_vectors: int = 0

    def __post_init__(self) -> None:
        given = self.winograd_for_dense
        _check(isinstance(given, bool), f"winograd_for_dense must be a bool, got {given!r}")
        _check(self.max_tile in (2, 4, 6), f"max_tile must be 2, 4 or 6, got {self.max_tile!r}")
        _check(self.min_channels >= 1, f"min_channels must be >= 1, got {self.min_channels!r}")
        _check(
            0 <= self.panel_vectors <= 16,
            f"panel_vectors must be 0 (automatic) to 16, got {self.panel_vectors!r}",
        )


@dataclass(frozen=True)
class PruneConfig(_Checked):
    """How :class:`tvm_sparsewino.nn.NativePruner` prunes.

    Attributes:
        sparsity: share of zeros among the coefficients at the end of the schedule, in [0, 1).
        criterion: how coefficients are ranked, one of ``CRITERIA``: "activation"
            (|U| rms(V) |A row|; needs calibration), "white" (|U| times the importance under white
            input), "authors" (Li, Park and Tang's threshold per coordinate).
        budget: "layer" gives every layer the same sparsity, "global" compares scores over all.
        start_step, end_step: optimiser steps between which sparsity rises.
        initial_sparsity: sparsity at ``start_step``, in [0, ``sparsity``].
        every: steps from one update of the masks to the next.
        regrow: whether a pruned coefficient may come back at an update.
        structure: the pattern that zeros keep to, one of ``PATTERNS``: "unstructured" (none),
            "balanced" (every row, that is every pair of coordinate and output channel, keeps
            equally many coefficients), "rows2" and "rows4" (2 or 4 adjacent output channels share
            their zeros), "kernel" (all coordinates of a pair of channels share theirs), "outputs"
            and "inputs" (whole feature maps: all coefficients of an output or an input channel).
        parameters: units that coefficients are trained in, one of ``PARAMETERS``: "kept" (those
            that the layers have), or a kind of :mod:`tvm_sparsewino.nn.parametrise`.
        l1: weight of ``sum |U|`` in ``pruner.penalty()`` while sparsity rises.
        max_threshold_factor: for criterion "authors": how many times higher than the base the
            threshold of a coefficient without gradient is; at least 2, or 0 to ignore gradients.

    Raises:
        ConfigError: a value out of range, or values that exclude each other.
    """

    sparsity: float = 0.9
    criterion: str = "activation"
    budget: str = "layer"
    start_step: int = 0
    end_step: int = 1000
    initial_sparsity: float = 0.0
    every: int = 1
    regrow: bool = True
    structure: str = "unstructured"
    parameters: str = "kept"
    l1: float = 0.0
    max_threshold_factor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sparsity", "initial_sparsity"):
            value = getattr(self, name)
            ok = isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value < 1
            _check(ok, f"{name} must be in [0, 1), got {value!r}")
        _check(self.initial_sparsity <= self.sparsity, "initial_sparsity is above sparsity")
        _check_one_of("criterion", self.criterion, CRITERIA)
        _check_one_of("budget", self.budget, BUDGETS)
        for name in ("start_step", "end_step", "every"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            _check(whole, f"{name} must be a whole number, got {value!r}")
        start, end = self.start_step, self.end_step
        _check(0 <= start <= end, "steps must satisfy 0 <= start_step <= end_step")
        _check(self.every >= 1, f"every must be >= 1, got {self.every!r}")
        _check_one_of("structure", self.structure, PATTERNS)
        _check(
            (self.structure, self.budget) != ("balanced", "global"),
            "structure 'balanced' needs budget 'layer': rows of equal length cannot be compared "
            "coefficient by coefficient with other layers",
        )
        _check_one_of("parameters", self.parameters, PARAMETERS)
        _check(
            self.criterion != "activation" or self.parameters == "kept",
            "criterion 'activation' ranks by measured scales, which parameters="
            f"{self.parameters!r} would replace",
        )
        _check(_is_number(self.l1) and self.l1 >= 0, f"l1 must be >= 0, got {self.l1!r}")
        factor = self.max_threshold_factor
        _check(
            _is_number(factor) and (factor == 0 or factor >= 2),
            f"max_threshold_factor must be 0 or >= 2, got {factor!r}",
        )
        _check(
            factor == 0 or self.criterion == "authors",
            f"max_threshold_factor belongs to criterion 'authors', got {self.criterion!r}",
        )


@dataclass(frozen=True)
class ConvShape(_Checked):
    """The static shape of one 2-D convolution, NCHW.

    Attributes:
        n, c, h, w: batch, input channels, input height and width.
        k: output channels.
        r: rows of the filter; its taps per dimension if it is square.
        padding: zeros added at (top, left, bottom, right).
        groups: channel groups.
        stride, dilation: (vertical, horizontal); one number stands for both.
        columns: columns of a filter that is not square, 0 for one that is; :attr:`s` is the number
            of columns of either.

    Raises:
        ConfigError: a stride or dilation that is no positive integer or pair of them.
    """

    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    columns: int = 0

    def __post_init__(self) -> None:
        for name in ("stride", "dilation"):
            object.__setattr__(self, name, _pair(name, getattr(self, name)))
        if self.columns == self.r:  # equal shapes are equal
            object.__setattr__(self, "columns", 0)

    @property
    def s(self) -> int:
        """Columns of the filter."""
        return self.columns or self.r

    @property
    def taps(self) -> int:
        """Filter taps per channel."""
        return self.r * self.s

    @property
    def extent(self) -> tuple[int, int]:
        """Inputs that the dilated filter spans, vertically and horizontally."""
        return (self.r - 1) * self.dilation[0] + 1, (self.s - 1) * self.dilation[1] + 1

    @property
    def oh(self) -> int:
        """Output height."""
        padded = self.h + self.padding[0] + self.padding[2]
        return (padded - self.extent[0]) // self.stride[0] + 1

    @property
    def ow(self) -> int:
        """Output width."""
        padded = self.w + self.padding[1] + self.padding[3]
        return (padded - self.extent[1]) // self.stride[1] + 1

    @property
    def direct_flops(self) -> int:
        """FLOPs of the direct convolution; "effective" figures count these."""
        per_output = 2 * self.c // self.groups * self.taps
        return self.n * self.k * self.oh * self.ow * per_output


@dataclass(frozen=True)
class Epilogue(_Checked):
    """What a kernel does after its convolution: bias, residual, activation, pool, in this order.

    Attributes:
        bias: add a bias per output channel.
        residual: add a tensor of the output's shape.
        activation: one of ``ACTIVATIONS``; "prelu" takes a slope per channel as an operand.
        slope: negative slope of "leaky_relu".
        pool: one of ``POOLS``.
        window: of the pool; no number beyond the map is ever the largest.

    Raises:
        ConfigError: an unknown activation or pool, or a window without sense.
    """

    bias: bool = False
    residual: bool = False
    activation: str = "none"
    slope: float = 0.0
    pool: str = "none"
    window: Window = HALVING

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", checked_window(self.window))
        _check(self.activation in ACTIVATIONS, f"unknown activation {self.activation!r}")
        _check(self.pool in POOLS, f"unknown pool {self.pool!r}")


@dataclass(frozen=True)
class LayerPlan(_Checked):
    """What the planner decided for one convolution, and why.

    Attributes:
        name: the layer's name in the model.
        conv: the layer's shape; None if no kernel can take it.
        density: share of nonzeros, 0 to 1, among the weights that the kernel is built from.
        algorithm: one of ``ALGORITHMS``; "left" leaves the layer to TVM.
        m: outputs per tile and dimension; 0 for direct convolutions and layers that are left.
        panel_vectors: vectors of tiles (direct kernels: of pixels) per panel.
        k_block: output channels whose products are in memory at a time.
        channel_block: channels of one coordinate that lie together in the scratch.
        rows_at_once: output channels that the GEMM computes together.
        reason: why this plan, in one sentence.
        flops_direct: FLOPs of the dense direct convolution.
        flops_done: FLOPs of the kernel's nonzero products and of its transforms.
        cost_cycles: predicted cycles of the core that has most to do.
        structure: the pattern of zeros that the sparse kernel exploits, one of ``STRUCTURES``.
        split_k: whether blocks of output channels run in parallel, too, not only panels.
        sharers: with ``split_k``: 0 runs all blocks of all panels in parallel; otherwise so many
            threads first compute whole panels, equally many each, and then share the remaining
            panels block by block.
        winograd_relu: whether negative transformed inputs count as zero.
        pool: the pooling that ends the kernel, one of ``POOLS``.
        window: of the pooling.
        lanes: float32 lanes of the kernel's vectors, one of ``LANES``; 0: a whole register's.
        copied: whether a 1x1 sparse direct kernel copies pixels that it could read in place.

    Raises:
        ConfigError: a value out of range, or an option that the algorithm does not have.
    """

    name: str
    conv: ConvShape | None
    density: float
    algorithm: str
    m: int = 0
    panel_vectors: int = 0
    k_block: int = 0
    channel_block: int = 0
    rows_at_once: int = 1
    reason: str = ""
    flops_direct: int = 0
    flops_done: int = 0
    cost_cycles: float = 0.0
    structure: str = "unstructured"
    split_k: bool = False
    sharers: int = 0
    winograd_relu: bool = False
    pool: str = "none"
    window: Window = HALVING
    lanes: int = 0
    copied: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", checked_window(self.window))
        _check_one_of("lanes", self.lanes, LANES)
        for option, algorithms in _OPTIONS.items():
            value = getattr(self, option)
            has_it = not value or self.algorithm in algorithms
            _check(has_it, f"{self.algorithm!r} kernels have no {option}, got {value!r}")
        _check(self.algorithm in ALGORITHMS, f"unknown algorithm {self.algorithm!r}")
        _check(self.structure in STRUCTURES, f"unknown structure {self.structure!r}")
        _check(self.pool in POOLS, f"unknown pool {self.pool!r}")
        _check(
            self.structure == "unstructured" or self.algorithm == "sparse_winograd",
            f"only a sparse kernel has a structure, got {self.structure!r} of {self.algorithm!r}",
        )
        _check(
            self.sharers == 0 or (self.split_k and self.sharers > 0),
            f"only with split_k are panels shared out, got sharers {self.sharers!r}",
        )
        _check(0 <= self.density <= 1, f"density must be in [0, 1], got {self.density!r}")
        _check(self.rows_at_once >= 1, f"rows_at_once must be >= 1, got {self.rows_at_once!r}")
        sizes = (self.m, self.panel_vectors, self.k_block, self.channel_block)
        _check(min(sizes) >= 0, f"sizes must not be negative, got {sizes}")

    def lanes_on(self, widest: int) -> int:
        """Float32 lanes of the kernel's vectors on a target whose registers hold ``widest``."""
        return self.lanes or widest

    @classmethod
    def from_json(cls, data: dict[str, Any] | str) -> LayerPlan:
        """As :meth:`_Checked.from_json`, the layer's shape included."""
        data = _json_object(cls.__name__, data)
        conv = data.get("conv")
        if conv is not None:
            conv = _json_object(ConvShape.__name__, conv)
            data["conv"] = ConvShape.from_json({"version": VERSION, **conv})
        return super().from_json(data)
