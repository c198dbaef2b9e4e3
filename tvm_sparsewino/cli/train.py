"""``sparsewino train``: prune and fine-tune a network whose recipe the package has."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "reproduce a pruned network from its pretrained weights"
NETWORKS = ("ffdnet",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes. Options that are not given keep the recipe's value."""
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for all results")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in DIR, where it was stopped"
    )
    parser.add_argument("--sparsity", type=float, help="share of zeros in every inner convolution")
    parser.add_argument("--tile", type=int, help="outputs per tile and dimension")
    parser.add_argument("--steps", type=int, help="of fine-tuning")


def run(arguments: argparse.Namespace) -> None:
    """Train; print the name of the weights file."""
    from ..errors import ConfigError
    from ..extras import require

    if not arguments.resume and arguments.out.exists() and any(arguments.out.iterdir()):
        raise ConfigError(
            f"{arguments.out} is not empty: add --resume to go on with the run in it, "
            "or name another folder"
        )
    training = require("tvm_sparsewino.nn.ffdnet_training", "train")
    names = ("sparsity", "tile", "steps")
    given = {name: getattr(arguments, name) for name in names}
    config = training.FFDNetTraining(**{k: v for k, v in given.items() if v is not None})
    print(training.train_ffdnet(config, arguments.out, resume=arguments.resume))
