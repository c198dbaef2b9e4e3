"""``sparsewino bench networks``: whole networks beside other engines."""

from __future__ import annotations

import argparse
from pathlib import Path

from .lists import numbers, texts

_NETWORKS = "resnet18,resnet50,vgg16,mobilenet_v2"
_QUICK = {"rounds": 3, "seconds": 5.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add = parser.add_argument
    add("--network", type=texts, default=texts(_NETWORKS), help=f"default {_NETWORKS}")
    add("--density", type=numbers(float), default=[1.0, 0.1], help="of ours (default 1,0.1)")
    add("--batch", type=numbers(int), default=[1, 16], help="default 1,16")
    add("--threads", type=numbers(int), default=[1, 2], help="default 1,2")
    add("--size", type=int, default=224, help="height and width of the images (default 224)")
    add("--peers", type=texts, default=["all"], help='"all" (default), "none" or names')
    add("--peers-at", type=Path, metavar="DIR", help="environments of the peers")
    add("--rounds", type=int, default=15, help="turns of everyone, at most")
    add("--seconds", type=float, default=25.0, help="of a race, after which it ends")
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help='"cpu": for one thread only, where others use the machine',
    )
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="a first look: few rounds")
    add("--out", type=Path, required=True, metavar="RECORD.jsonl", help="added to, and continued")


def run(arguments: argparse.Namespace) -> None:
    """Run all races that the record does not hold."""
    from ..bench.network_contestants import NETWORK_PEERS
    from ..bench.network_models import choose_networks
    from ..bench.networks import NetworkRequest, run_networks
    from ..bench.peers import choose_peers, default_folder
    from ..bench.race import Effort

    limits = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    limits |= _QUICK if arguments.quick else {}
    request = NetworkRequest(
        networks=choose_networks(arguments.network),
        batches=arguments.batch,
        threads=arguments.threads,
        densities=arguments.density,
        size=arguments.size,
        seed=arguments.seed,
        peers=[peer for peer in choose_peers(arguments.peers) if peer in NETWORK_PEERS],
        folder=arguments.peers_at or default_folder(),
        effort=Effort(clock=arguments.clock, **limits),
        out=arguments.out,
    )
    run_networks(request, say=lambda text: print(text, flush=True))
