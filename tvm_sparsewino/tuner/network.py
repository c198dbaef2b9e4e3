"""Tune every convolution of a network, into a file of records."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.ir import IRModule

from ..config import CompileConfig
from ..errors import in_context
from ..planner import Option, spatial_options, weights_key, winograd_options
from ..records import LayerKey, Record, append_record, tuned_fields
from ..relay_passes.plan_layers import conv_sites
from ..relay_passes.sites import ConvSite
from ..schedules.target import CpuTarget
from .candidates import starts
from .measure import Machine, Problem
from .search import Found, Search
from .version import kernel_version


@dataclass(frozen=True)
class Layer:
    """Convolutions that are tuned together, being alike.

    Attributes:
        names: their names in the network.
        key: what records find them by.
        problem: what is measured: the first one's shape and weights.
        options: what the planner compares, cheapest first.
    """

    names: tuple[str, ...]
    key: LayerKey
    problem: Problem
    options: tuple[Option, ...]


def layers_to_tune(
    mod: IRModule, target: CpuTarget, config: CompileConfig, threads: int
) -> list[Layer]:
    """The distinct convolutions of ``mod`` that the planner would not leave as they are.

    Raises:
        ShapeError: a convolution with a symbolic shape; names the layer.
    """
    alike: dict[LayerKey, list[ConvSite]] = {}
    for site in conv_sites(mod):
        if not site.reason and (site.m or min(site.shape.c, site.shape.k) >= config.min_channels):
            key = weights_key(site.shape, site.weight, site.m, target, threads)
            alike.setdefault(key, []).append(site)
    return [
        Layer(
            tuple(site.name for site in sites),
            key,
            Problem(sites[0].shape, sites[0].weight, sites[0].m),
            tuple(_options(sites[0], target, config)),
        )
        for key, sites in alike.items()
    ]


def _options(site: ConvSite, target: CpuTarget, config: CompileConfig) -> list[Option]:
    if site.m:
        return winograd_options(site.shape, site.weight, site.m, target)
    return spatial_options(site.shape, site.weight, target, config)


def tune_layers(
    layers: list[Layer],
    target: CpuTarget,
    threads: int,
    machine: Machine,
    path: str | os.PathLike[str],
    budget: float,
    report: Callable[[Layer, Found], Any] = lambda layer, found: None,
) -> list[Record]:
    """Search the fastest plan of every layer; each is in the file before the next begins.

    Args:
        layers: from :func:`layers_to_tune`.
        target: the CPU.
        threads: threads of a call.
        machine: where kernels run.
        path: the file of records, which is appended to.
        budget: seconds for each layer.
        report: called after each layer.

    Raises:
        TuneError: a layer's first candidate cannot be measured, the remote machine is lost, or the
            file cannot be written.
    """
    records = []
    for layer in layers:
        with in_context(f"layer {layer.names[0]!r}"):
            plans = starts(layer.problem, list(layer.options), target, threads)
            found = Search(layer.problem, machine, target, threads, budget).run(plans)
        record = Record(
            key=layer.key,
            kernels=kernel_version(),
            plan=tuned_fields(found.plan),
            seconds=found.seconds,
            median_seconds=found.median_seconds,
            model_seconds=found.model_seconds,
            candidates=found.candidates,
        )
        append_record(path, record)
        records.append(record)
        report(layer, found)
    return records
