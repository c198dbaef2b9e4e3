"""``sparsewino train``: train, prune and fine-tune networks, one run or a matrix of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

from ..errors import ConfigError
from ..extras import require

HELP = "train and prune a network: a classifier on your images, or FFDNet's recipe"
NETWORKS = ("classifier", "ffdnet")
_FFDNET_OPTIONS = ("sparsity", "tile", "steps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes. Options that are not given keep the recipe's value."""
    parser.add_argument("network", nargs="?", choices=NETWORKS, default="classifier")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for all results"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in DIR where it stopped"
    )
    classifier = parser.add_argument_group("classifier")
    classifier.add_argument(
        "--config", type=Path, metavar="FILE", help="settings of one run, TOML or JSON"
    )
    classifier.add_argument(
        "--matrix", type=Path, metavar="FILE", help="settings of many runs, TOML or JSON"
    )
    classifier.add_argument("--data", type=Path, metavar="DIR", help="folder of the data set")
    classifier.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, such as prune.sparsity=0.95; may be repeated",
    )
    classifier.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="records of a matrix (default DIR/records.jsonl)",
    )
    ffdnet = parser.add_argument_group("ffdnet")
    ffdnet.add_argument("--sparsity", type=float, help="share of zeros in every inner convolution")
    ffdnet.add_argument("--tile", type=int, help="outputs per tile and dimension")
    ffdnet.add_argument("--steps", type=int, help="steps of fine-tuning")


def run(arguments: argparse.Namespace) -> None:
    """Train; print what came out."""
    _check(arguments)
    if arguments.network == "ffdnet":
        training = require("tvm_sparsewino.nn.ffdnet_training", "train")
        given = {name: getattr(arguments, name) for name in _FFDNET_OPTIONS}
        config = training.FFDNetTraining(**{k: v for k, v in given.items() if v is not None})
        print(training.train_ffdnet(config, arguments.out, resume=arguments.resume))
        return
    experiments = require("tvm_sparsewino.nn.experiments", "train")
    settings = list(arguments.set)
    if arguments.data is not None:
        settings.append(f"data_folder={json.dumps(str(arguments.data))}")
    if arguments.matrix is None:
        _one(experiments, arguments, settings)
    else:
        _many(experiments, arguments, settings)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options of the other network, and a folder that is in use.

    Raises:
        ConfigError: either.
    """
    classifier = ("config", "matrix", "data", "set", "records")
    foreign = classifier if arguments.network == "ffdnet" else _FFDNET_OPTIONS
    wrong = [f"--{name}" for name in foreign if getattr(arguments, name) not in (None, [])]
    if wrong:
        raise ConfigError(f"{arguments.network} has no {', '.join(wrong)}")
    if arguments.config is not None and arguments.matrix is not None:
        raise ConfigError("--config is of one run, --matrix of many: give one of them")
    if arguments.records is not None and arguments.matrix is None:
        raise ConfigError("--records is of a --matrix")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ConfigError(f"--out {arguments.out} is a file, not a folder")
    if not arguments.resume and arguments.out.exists() and any(arguments.out.iterdir()):
        raise ConfigError(
            f"{arguments.out} is not empty: add --resume to go on with the run in it, "
            "or name another folder"
        )


def _one(experiments: ModuleType, arguments: argparse.Namespace, settings: list[str]) -> None:
    experiment = experiments.read_experiment(arguments.config, settings)
    print(f"seed {experiment.seed}", flush=True)
    record = experiments.run_experiment(experiment, arguments.out)
    if record:
        print(_line(record))
        print(arguments.out / "record.json")


def _many(experiments: ModuleType, arguments: argparse.Namespace, settings: list[str]) -> None:
    path = arguments.records or arguments.out / "records.jsonl"
    for record in experiments.run_matrix(arguments.matrix, arguments.out, path, tuple(settings)):
        print(_line(record))
    print(path)


def _line(record: dict) -> str:
    e = record["experiment"]
    text = f"{e['network']} {e['data']} {e['prune']['method']} seed {e['seed']}: "
    text += f"accuracy {record['accuracy']:.2f} %, dense {record['dense']['accuracy']:.2f} %"
    return text + (f", {record['zeros']['all']:.1%} zeros" if record["zeros"] else "")
