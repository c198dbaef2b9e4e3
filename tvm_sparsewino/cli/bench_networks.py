"""``sparsewino bench networks``: whole networks beside other engines."""

from __future__ import annotations

import argparse

from . import bench_race
from .lists import numbers, texts

_NETWORKS = "resnet18,resnet50,vgg16,mobilenet_v2"
_SECONDS, _QUICK_SECONDS = 25.0, 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add = parser.add_argument
    add("--network", type=texts, default=texts(_NETWORKS), help=f"networks (default {_NETWORKS})")
    add(
        "--density",
        type=numbers(float),
        default=[1.0, 0.1],
        help="shares of nonzeros of our networks (default 1,0.1)",
    )
    add("--size", type=int, default=224, help="height and width of the images (default 224)")
    bench_race.add_arguments(parser, _SECONDS)


def run(arguments: argparse.Namespace) -> None:
    """Run all races that the record does not hold."""
    from ..bench.network_contestants import NETWORK_PEERS
    from ..bench.network_models import choose_networks
    from ..bench.networks import NetworkRequest, run_networks
    from ..bench.peers import choose_peers, default_folder

    request = NetworkRequest(
        networks=choose_networks(arguments.network),
        batches=arguments.batch,
        threads=arguments.threads,
        densities=arguments.density,
        size=arguments.size,
        seed=arguments.seed,
        peers=[peer for peer in choose_peers(arguments.peers) if peer in NETWORK_PEERS],
        folder=arguments.peers_at or default_folder(),
        effort=bench_race.effort(arguments, _QUICK_SECONDS),
        out=arguments.out,
    )
    run_networks(request, say=lambda text: print(text, flush=True))
