"""Pick the algorithm, tile and blocking of one convolution, and say why."""

from __future__ import annotations

import numpy as np

from .config import CompileConfig, ConvShape, LayerPlan
from .cook_toom import cook_toom
from .cost import Core, predict
from .schedules.target import CpuTarget

TILES = (2, 4, 6)


def winograd_coefficients(weight: np.ndarray, m: int) -> np.ndarray:
    """Spatial weights [K, C/groups, r, r] -> U = G w G^T, [alpha^2, K, C/groups] float32.

    Computed in float64 and rounded once. Zeros of the filter that make a coefficient exactly zero
    stay exact zeros.
    """
    algorithm = cook_toom(m, weight.shape[2])
    g = algorithm.arrays()[1]
    u = np.einsum("ip,kcpq,jq->ijkc", g, weight.astype(np.float64), g, optimize=True)
    return u.reshape(algorithm.coordinates, *weight.shape[:2]).astype(np.float32)


def plan_left(name: str, reason: str, shape: ConvShape | None = None) -> LayerPlan:
    """The plan of a convolution that stays as it is, ``reason`` being why."""
    return LayerPlan(
        name=name,
        conv=shape,
        density=1.0,
        algorithm="left",
        reason=f"left as it is: {reason}",
        flops_direct=shape.direct_flops if shape else 0,
        flops_done=shape.direct_flops if shape else 0,
    )


def plan_winograd(
    name: str, shape: ConvShape, u: np.ndarray, m: int, target: CpuTarget, config: CompileConfig
) -> LayerPlan:
    """Plan a convolution whose weights are Winograd coefficients: m is fixed, others cannot run it.

    Args:
        name: the layer's name.
        shape: its shape.
        u: float32 [alpha^2, K, C/groups].
        m: the tile the coefficients were made for.
        target: the CPU.
        config: options.
    """
    density = _density(u)
    reason = f"trained as Winograd coefficients of F({m},{shape.r})"
    best = _best([(m, density)], shape, target)
    return _planned(name, shape, best, target, config, reason)


def plan_spatial(
    name: str, shape: ConvShape, weight: np.ndarray, target: CpuTarget, config: CompileConfig
) -> LayerPlan:
    """Plan a plain convolution, which may run as a Winograd convolution with any tile.

    Args:
        name: the layer's name.
        shape: its shape.
        weight: float32 [K, C/groups, r, r].
        target: the CPU.
        config: options.
    """
    density = _density(weight)
    if min(shape.c, shape.k) < config.min_channels:
        channels = min(shape.c, shape.k)
        return plan_left(name, f"{channels} channels, below {config.min_channels}", shape)
    if density == 1.0 and not config.winograd_for_dense:
        return plan_left(name, "no zeros in its weights, and winograd_for_dense is off", shape)
    tiles = [m for m in TILES if m <= config.max_tile]
    candidates = [(m, _density(winograd_coefficients(weight, m))) for m in tiles]
    best = _best(candidates, shape, target)
    reason = f"cheapest of the tiles {', '.join(map(str, tiles))} for {density:.0%} dense weights"
    return _planned(name, shape, best, target, config, reason)


def _density(values: np.ndarray) -> float:
    return float(np.count_nonzero(values) / values.size) if values.size else 0.0


def _best(
    candidates: list[tuple[int, float]], shape: ConvShape, target: CpuTarget
) -> tuple[str, int, float]:
    """The (algorithm, m, density) with the lowest predicted cost; the first of equals."""
    options = [
        (algorithm, m, density)
        for m, density in candidates
        for algorithm in ("sparse_winograd", "dense_winograd")
    ]
    return min(options, key=lambda option: predict(shape, *option, _core(target)).cycles)


def _core(target: CpuTarget) -> Core:
    return Core(target.lanes, target.vector_registers, target.l2_bytes)


def _planned(
    name: str,
    shape: ConvShape,
    choice: tuple[str, int, float],
    target: CpuTarget,
    config: CompileConfig,
    origin: str,
) -> LayerPlan:
    algorithm, m, density = choice
    cost = predict(shape, algorithm, m, density, _core(target))
    other = {"sparse_winograd": "dense_winograd", "dense_winograd": "sparse_winograd"}[algorithm]
    ratio = predict(shape, other, m, density, _core(target)).cycles / cost.cycles
    chosen, beaten = (a.removesuffix("_winograd") for a in (algorithm, other))
    kernel = (
        f"with {1 - density:.1%} zeros the {chosen} kernel is predicted {ratio:.1f}x as fast as "
        f"the {beaten} one"
    )
    return LayerPlan(
        name=name,
        conv=shape,
        density=density,
        algorithm=algorithm,
        m=m,
        panel_vectors=config.panel_vectors or cost.blocking.panel_vectors,
        k_block=cost.blocking.k_block,
        channel_block=cost.blocking.channel_block,
        rows_at_once=cost.blocking.rows_at_once,
        reason=f"{origin}; {kernel}",
        flops_direct=shape.direct_flops,
        flops_done=cost.flops_done,
        cost_cycles=cost.cycles,
    )
