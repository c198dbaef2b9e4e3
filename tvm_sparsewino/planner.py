"""Choose the algorithm, tile and blocking of one convolution, and give the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .config import CompileConfig, ConvShape, Epilogue, LayerPlan
from .cook_toom import cook_toom
from .cost import Core, Cost, predict, saved_by_pool
from .cost_direct import predict_direct
from .cost_sparse import pooled_sparse_direct, predict_sparse_direct
from .geometry import winograd_refusal
from .geometry_pooling import pool_refusal
from .pool_window import Window
from .records import LayerKey, Records, layer_key
from .schedules.target import CpuTarget
from .structure import detect_structure

TILES = (2, 4, 6)
WINOGRAD_FILTERS = (3, 5)  # that spatial weights are transformed for
UNSTRUCTURED = "unstructured"
# By what share of itself a sparse product counts as dearer than predicted when ways are compared.
# Prices are fitted where sparse kernels are wanted, at few nonzeros; near the density at which
# dense kernels take as long, sparse ones were measured up to so much slower than predicted.
CAUTION = 0.3


@dataclass(frozen=True)
class Option:
    """One way to compute a convolution, with the best blocking that the model knows.

    Attributes:
        algorithm, m, structure: as in :class:`LayerPlan`.
        density: share of nonzeros among the weights that this way reads.
        cost: predicted.
    """

    algorithm: str
    m: int
    density: float
    structure: str
    cost: Cost

    @property
    def rank(self) -> float:
        """Cycles as they count beside other ways."""
        doubt = CAUTION if self.algorithm.startswith("sparse") else 0.0
        return self.cost.cycles + doubt * self.cost.gemm_cycles

    def __str__(self) -> str:
        kind = self.algorithm.replace("_", " ").replace("winograd", f"F({self.m})")
        return kind if self.structure == UNSTRUCTURED else f"{kind} {self.structure}"


# Output channels that are transformed at a time.
SLICE = 64


def winograd_coefficients(weight: np.ndarray, m: int) -> np.ndarray:
    """Spatial weights [K, C/groups, r, r] -> U = G w G^T, [alpha^2, K, C/groups] float32.

    Computed in float64 and rounded once. Zeros of the filter that make a coefficient exactly zero
    stay exact zeros.
    """
    algorithm = cook_toom(m, weight.shape[2])
    g = algorithm.arrays()[1]
    u = np.empty((algorithm.coordinates, *weight.shape[:2]), np.float32)
    for start in range(0, len(weight), SLICE):  # so that little is held in float64
        part = weight[start : start + SLICE].astype(np.float64)
        exact = np.einsum("ip,kcpq,jq->ijkc", g, part, g, optimize=True)
        u[:, start : start + SLICE] = exact.reshape(len(u), *part.shape[:2])
    return u


def kernel_weight(weight: np.ndarray, m: int, plan: LayerPlan) -> np.ndarray:
    """The weights that the kernel of ``plan`` takes, from coefficients of F(m, r) or, m being 0,
    from a filter.
    """
    if plan.m and not m:
        weight = winograd_coefficients(weight, plan.m)
    return np.ascontiguousarray(weight, np.float32)


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
    name: str,
    shape: ConvShape,
    u: np.ndarray,
    m: int,
    target: CpuTarget,
    config: CompileConfig,
    threads: int = 1,
    records: Records | None = None,
    relu: bool = False,
) -> LayerPlan:
    """Plan a convolution whose weights are Winograd coefficients: m is fixed, others cannot run it.

    Args:
        name: the layer's name.
        shape: its shape.
        u: float32 [alpha^2, K, C/groups].
        m: the tile the coefficients were made for.
        target: the CPU.
        config: options.
        threads: cores that work together; they decide the blocking, never algorithm or tile, so
            that results do not depend on them.
        records: measurements, which are followed where they hold for the layer.
        relu: whether negative transformed inputs count as zero: what the ReLU costs is in the noise
            of the predictions and of the records.
    """
    options = winograd_options(shape, u, m, target)
    origin = f"trained as Winograd coefficients of F({m},{shape.r})"
    origin += " behind a ReLU of the transformed inputs" if relu else ""
    planned = _planned(name, shape, options, config, origin, machine(target, threads))
    key = weights_key(shape, u, m, target, threads)
    recorded = _as_recorded(planned, options, origin, key, records)
    return dataclasses.replace(recorded, winograd_relu=relu)


def plan_spatial(
    name: str,
    shape: ConvShape,
    weight: np.ndarray,
    target: CpuTarget,
    config: CompileConfig,
    threads: int = 1,
    records: Records | None = None,
) -> LayerPlan:
    """Plan a plain convolution: direct, or as a Winograd convolution with any tile.

    Args:
        name: the layer's name.
        shape: its shape.
        weight: float32 [K, C/groups, r, s].
        target: the CPU.
        config: options.
        threads, records: as for :func:`plan_winograd`.
    """
    if min(shape.c, shape.k) < config.min_channels:
        channels = min(shape.c, shape.k)
        return plan_left(name, f"{channels} channels, below {config.min_channels}", shape)
    options = spatial_options(shape, weight, target, config)
    origin = f"{weight_density(weight):.0%} dense weights"
    refusal = why_not_winograd(shape, weight, config)
    origin += f", no Winograd: {refusal}" if refusal else ""
    planned = _planned(name, shape, options, config, origin, machine(target, threads))
    key = weights_key(shape, weight, 0, target, threads)
    return _as_recorded(planned, options, origin, key, records)


def with_pool(
    plan: LayerPlan, pool: str, window: Window, target: CpuTarget, threads: int = 1
) -> LayerPlan:
    """``plan`` with the pool that follows the layer, if its kernel can do that and gains by it.

    Args:
        plan: what runs the layer.
        pool: one of ``POOLS``.
        window: of the pool.
        target: the CPU.
        threads: cores that work together.
    """
    if pool == "none" or pool_refusal(plan, Epilogue(pool=pool, window=window)):
        return plan
    core = machine(target, threads)
    if plan.algorithm == "sparse_direct":
        return _with_pooled_rows(plan, pool, window, core)
    saved = saved_by_pool(plan.conv, core)
    return dataclasses.replace(
        plan,
        pool=pool,
        cost_cycles=max(0.0, plan.cost_cycles - saved),
        reason=f"{plan.reason}; with the 2x2 {pool} pool behind it",
    )


def _with_pooled_rows(plan: LayerPlan, pool: str, window: Window, core: Core) -> LayerPlan:
    """``plan`` with the blocking whose rows stay in L2 until they are pooled, or why without."""
    apart, cost = pooled_sparse_direct(plan, window, core)
    text = f"the {window.rows}x{window.columns} {pool} pool behind it"
    if cost is None or cost.cycles >= apart:
        why = "no blocking leaves its rows in L2" if cost is None else "nothing is saved by both"
        return dataclasses.replace(plan, reason=f"{plan.reason}; without {text}: {why}")
    saved = (apart - cost.cycles) / 1e6
    return dataclasses.replace(
        plan,
        pool=pool,
        window=window,
        panel_vectors=cost.blocking.panel_vectors,
        k_block=cost.blocking.k_block,
        channel_block=cost.blocking.channel_block,
        rows_at_once=cost.blocking.rows_at_once,
        lanes=cost.lanes,
        cost_cycles=cost.cycles,
        reason=f"{plan.reason}; with {text}, which saves {saved:.3g} Mcycles",
    )


def winograd_options(shape: ConvShape, u: np.ndarray, m: int, target: CpuTarget) -> list[Option]:
    """Every way to compute a convolution with coefficients of F(m, r), best first."""
    options = _winograd(shape, u, m, machine(target))
    return sorted(options, key=lambda option: option.rank)


def spatial_options(
    shape: ConvShape, weight: np.ndarray, target: CpuTarget, config: CompileConfig
) -> list[Option]:
    """Every way that ``config`` allows to compute a convolution with a filter, best first."""
    core, density = machine(target), weight_density(weight)
    options = [
        Option(name, 0, density, UNSTRUCTURED, _predict_spatial(name, shape, density, core))
        for name in ("dense_direct", "sparse_direct")
    ]
    if not why_not_winograd(shape, weight, config):
        for m in TILES:
            if m <= config.max_tile:
                options += _winograd(shape, winograd_coefficients(weight, m), m, core)
    return sorted(options, key=lambda option: option.rank)


def why_not_winograd(shape: ConvShape, weight: np.ndarray, config: CompileConfig) -> str:
    """Why no Winograd convolution is compared for a filter; "" where some are."""
    reason = winograd_refusal(shape)
    if not reason and shape.r not in WINOGRAD_FILTERS:
        reason = f"its filter is {shape.r}x{shape.s}, not 3x3 or 5x5"
    if not reason and not config.winograd_for_dense and weight.all():
        reason = "winograd_for_dense is off"
    return reason


def machine(target: CpuTarget, threads: int = 1) -> Core:
    """What the cost model needs to know of ``threads`` cores of ``target``."""
    caches = target.l1_bytes, target.l2_bytes
    per_cycle = target.vectors_per_cycle
    return Core(target.lanes, target.vector_registers, *caches, threads, per_cycle)


def on_machine(option: Option, shape: ConvShape, core: Core) -> Option:
    """``option``, which is priced for one core, with the best blocking for all of ``core``."""
    if core.threads == 1:
        return option
    if option.m:
        kind = (option.algorithm, option.m, option.density, core, option.structure)
        return dataclasses.replace(option, cost=predict(shape, *kind))
    cost = _predict_spatial(option.algorithm, shape, option.density, core)
    return dataclasses.replace(option, cost=cost)


def _predict_spatial(algorithm: str, shape: ConvShape, density: float, core: Core) -> Cost:
    """The cost of an algorithm without transforms."""
    if algorithm == "sparse_direct":
        return predict_sparse_direct(shape, density, core)
    return predict_direct(shape, core)


def weights_key(
    shape: ConvShape, weight: np.ndarray, m: int, target: CpuTarget, threads: int
) -> LayerKey:
    """What records of a layer are found by; ``m`` is 0 for a filter."""
    structure = weight_structure(weight, shape.groups) if m else UNSTRUCTURED
    return layer_key(shape, m, weight_density(weight), structure, target.text, threads)


def _winograd(shape: ConvShape, u: np.ndarray, m: int, core: Core) -> Iterator[Option]:
    density = weight_density(u)
    for structure in dict.fromkeys((weight_structure(u, shape.groups), UNSTRUCTURED)):
        cost = predict(shape, "sparse_winograd", m, density, core, structure)
        yield Option("sparse_winograd", m, density, structure, cost)
    cost = predict(shape, "dense_winograd", m, density, core)
    yield Option("dense_winograd", m, density, UNSTRUCTURED, cost)


def weight_structure(u: np.ndarray, groups: int) -> str:
    """The pattern that the zeros of coefficients keep to; weights without zeros have none."""
    return UNSTRUCTURED if u.all() else detect_structure(u, groups)


def weight_density(values: np.ndarray) -> float:
    """Share of nonzeros."""
    return float(np.count_nonzero(values) / values.size) if values.size else 0.0


def plan_of(name: str, shape: ConvShape, option: Option, reason: str = "") -> LayerPlan:
    """The plan that runs ``shape`` in the way of ``option``."""
    blocking = option.cost.blocking
    return LayerPlan(
        name=name,
        conv=shape,
        density=option.density,
        algorithm=option.algorithm,
        m=option.m,
        panel_vectors=blocking.panel_vectors,
        k_block=blocking.k_block,
        channel_block=blocking.channel_block,
        rows_at_once=blocking.rows_at_once,
        structure=option.structure,
        split_k=option.cost.split_k,
        sharers=option.cost.sharers,
        lanes=option.cost.lanes,
        copied=option.cost.copied,
        reason=reason,
        flops_direct=shape.direct_flops,
        flops_done=option.cost.flops_done,
        cost_cycles=option.cost.cycles,
    )


def _planned(
    name: str,
    shape: ConvShape,
    options: list[Option],
    config: CompileConfig,
    origin: str,
    core: Core,
) -> LayerPlan:
    """The plan of the cheapest option; the reason names what the others were predicted to take."""
    best = options[0]
    others = [f"{o} {o.rank / best.rank:.2f}x" for o in options[1:]]
    than = f"; {', '.join(others)}" if others else ""
    reason = f"{origin}; {best} is predicted at {best.cost.cycles / 1e6:.3g} Mcycles{than}"
    plan = plan_of(name, shape, on_machine(best, shape, core), reason)
    if config.panel_vectors and best.m:
        plan = dataclasses.replace(plan, panel_vectors=config.panel_vectors)
    return plan


def _as_recorded(
    plan: LayerPlan, options: list[Option], origin: str, key: LayerKey, records: Records | None
) -> LayerPlan:
    """``plan``, or what was measured fastest for its layer if that is one of ``options``."""
    if records is None:
        return plan
    record = records.find(key)
    if record is None:
        note = records.why_not(key)
        return dataclasses.replace(plan, reason=f"{plan.reason}; {note}") if note else plan
    kind = tuple(record.plan[name] for name in ("algorithm", "m", "structure"))
    options = [o for o in options if (o.algorithm, o.m, o.structure) == kind]
    if not options:
        note = f"{kind[0]} with m = {kind[1]} was measured fastest, but is not allowed"
        return dataclasses.replace(plan, reason=f"{plan.reason}; {note}")
    gain = record.model_seconds / record.seconds
    reason = (
        f"{origin}; {options[0]} measured {record.seconds * 1e3:.4g} ms, the fastest of "
        f"{record.candidates} plans, {gain:.2f}x as fast as what the model picks"
    )
    return dataclasses.replace(plan_of(plan.name, plan.conv, options[0], reason), **record.plan)
