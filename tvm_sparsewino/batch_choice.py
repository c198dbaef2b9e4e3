"""Planning a network, and choosing whether a batch of a known size runs at once or in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from tvm import relax
from tvm.ir import IRModule

from .artefact import batch_entry
from .batch_costs import call_cycles
from .batches import DEFAULT_SIZES
from .config_linear import AnyPlan
from .errors import ConfigError, ShapeError
from .machines import ENTRY
from .records import Records
from .relay_passes.in_pieces import with_main
from .relay_passes.pipeline import prepare
from .signature import batched_inputs, with_batches

# A batch runs at once where pieces are predicted to take more than so many times as long:
# predictions are not much better than that, pieces need less memory, and side by side they do not
# wait within layers. VGG-16 with 90 % zeros, 16 rows: 2020 Mcycles at once, 2040 in pieces of 4.
_WORTH = 1.03

# A module, of prepared layers, a number of threads and measurements to follow -> plans.
Planning = Callable[[IRModule, int, Records | None], tuple[AnyPlan, ...]]


@dataclass(frozen=True)
class Planned:
    """What is to be compiled.

    Attributes:
        func: says what the network takes and gives.
        network: its functions, prepared for planning.
        plans: of all layers.
        batches: sizes that there are functions for beside "main" or instead.
        threads: that the plans were made for.
        choice: why a batch of a known size is run at once or in pieces; "" where there is none.
    """

    func: relax.Function
    network: IRModule
    plans: tuple[AnyPlan, ...]
    batches: tuple[int, ...]
    threads: int
    choice: str = ""


def with_plan(
    mod: IRModule, batches: Iterable[int] | None, plans: tuple[AnyPlan, ...], threads: int
) -> Planned:
    """The network with plans that were made for it; other arguments as for :func:`planned`."""
    func, network, sizes = with_batches(mod, batches)
    choice = "at once: the plan was given" if not sizes and _divisors(func) else ""
    return Planned(func, prepare()(network), plans, sizes, threads, choice)


def planned(
    mod: IRModule,
    batches: Iterable[int] | None,
    planning: Planning,
    threads: int,
    records: Records | None = None,
) -> Planned:
    """Plan a network as it is to be compiled.

    Several rows of a known number that do not depend on each other may run in pieces of 1, 4 or 16
    rows, each on a thread of its own: maps of one image stay in the caches between layers, those of
    many do not, while weights are read once per piece. The choice is by what is predicted on one
    thread, so that results do not depend on how many there are.

    Args:
        mod: as it was imported.
        batches: as for :func:`tvm_sparsewino.signature.with_batches`.
        planning: makes plans.
        threads: that the network is to run on.
        records: measurements that plans follow; they say nothing of batches in pieces.

    Raises:
        ConfigError, ShapeError: as :func:`tvm_sparsewino.signature.with_batches`.
    """
    func, network, sizes = with_batches(mod, batches)
    network = prepare()(network)  # plans are of the layers as they will run
    whole = Planned(func, network, (), sizes, threads)
    if not sizes and (candidates := _divisors(func)):
        whole = _chosen(mod, whole, candidates, planning)
    return replace(whole, plans=planning(whole.network, whole.threads, records))


def _chosen(
    mod: IRModule, whole: Planned, candidates: tuple[int, ...], planning: Planning
) -> Planned:
    """The batch at once, or in pieces of one of some sizes; without plans."""
    try:
        parts = prepare()(with_batches(mod, candidates)[1])
    except (ConfigError, ShapeError) as error:
        return replace(whole, choice=f"at once: {error}")
    rows = _rows(whole.func)
    costs = {rows: call_cycles(planning(whole.network, 1, None), 1)}
    plans = planning(parts, 1, None)
    for size in candidates:
        costs[size] = rows // size * call_cycles(_of_size(plans, size), 1)
    if not all(costs.values()):
        return replace(whole, choice="at once: nothing is known of what its layers take")
    best = min(candidates, key=lambda size: costs[size])
    if costs[best] > _WORTH * costs[rows]:
        return replace(whole, choice=f"at once: {_compared(costs, rows)}")
    names = batched_inputs(whole.func)
    return replace(
        whole,
        network=with_main(_alone(parts, best), whole.func, batch_entry(best), best, names),
        batches=(best,),
        threads=max(1, whole.threads // (rows // best)),
        choice=f"in pieces: {_compared(costs, rows)}",
    )


def _divisors(func: relax.Function) -> tuple[int, ...]:
    """Sizes that a batch may be cut into; none where no input begins with several rows."""
    rows = _rows(func)
    return tuple(size for size in DEFAULT_SIZES if size < rows and rows % size == 0)


def _rows(func: relax.Function) -> int:
    shape = func.params[0].ty.shape.values if func.params else ()
    return int(shape[0]) if len(shape) else 0


def _of_size(plans: Iterable[AnyPlan], size: int) -> tuple[AnyPlan, ...]:
    return tuple(plan for plan in plans if plan.name.endswith(f"@{batch_entry(size)}"))


def _alone(parts: IRModule, size: int) -> IRModule:
    """The module with the function of one batch size only, beside what the user's module has."""
    others = {batch_entry(other) for other in DEFAULT_SIZES} - {batch_entry(size)}
    functions = {v: f for v, f in parts.functions.items() if v.name_hint not in {*others, ENTRY}}
    return IRModule(functions, attrs=parts.attrs)


def _compared(costs: Mapping[int, float], rows: int) -> str:
    """What each way takes, in words."""
    listed = (
        f"{'at once' if size == rows else f'in pieces of {size}'} {cycles / 1e6:.4g}"
        for size, cycles in sorted(costs.items(), reverse=True)
    )
    return f"Mcycles for {rows} rows on one thread, {', '.join(listed)}"
