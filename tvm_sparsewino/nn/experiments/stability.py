"""The largest learning rate at which each pruning method still trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..data import load_data
from ..distributed import Ranks, find_device
from ..stable_rate import largest_stable_rate
from ..training import kept_generators
from .methods import pruner_of
from .optimizers import make_optimizer
from .phases import TUNE, Setting, make_loss
from .run import dense_network
from .settings import Experiment
from .start import loaded_start, make_start


def stable_rates(
    experiment: Experiment,
    methods: Sequence[str],
    dense_dir: str | Path,
    start: float = 1e-4,
    stop: float = 10.0,
    steps: int = 100,
) -> list[dict[str, Any]]:
    """Search the largest stable rate of each method from one dense network.

    All methods see the same images in the same order, with the same schedule of sparsity over
    ``steps`` steps and one constant learning rate, which is what is doubled. "Stable" is as
    :func:`~tvm_sparsewino.nn.stable_rate.largest_stable_rate` has it.

    Args:
        experiment: network, data, pruning and fine-tuning; its method and rate are replaced.
        methods: names of :data:`.methods.METHODS`.
        dense_dir: of the dense network, which is trained if it is not there.
        start, stop: range of rates.
        steps: of each trial.

    Returns:
        per method ``{"method", "rate", "bounded", "trials", "experiment"}``.

    Raises:
        as :func:`.run.run_experiment`.
    """
    device = find_device(experiment.device)
    data = load_data(experiment.data, experiment.data_folder, experiment.image_size)
    setting = Setting(experiment, data, Ranks(), device, False)
    dense = dense_network(setting, Path(dense_dir)).eval().requires_grad_(False)
    rows = []
    for method in methods:
        chosen = replace(experiment, prune=replace(experiment.prune, method=method))
        trial = _Trial(replace(setting, experiment=chosen), dense, steps)
        found = largest_stable_rate(trial.losses, start, stop, steps)
        rows.append(
            {
                "method": method,
                **asdict(found),
                "experiment": {**asdict(chosen), "data_folder": None},
            }
        )
    return rows


class _Trial:
    """Training with one method, again and again from the same start."""

    def __init__(self, setting: Setting, dense: nn.Module, steps: int) -> None:
        self.setting, self.dense, self.steps = setting, dense, steps
        self.state = make_start(setting, dense)

    def losses(self, rate: float) -> Iterator[float]:
        """The loss of each step at ``rate``; at 0 of the network as it is, pruned all the same."""
        e, steps = self.setting.experiment, self.steps
        model = loaded_start(self.setting, self.dense, self.state).train()
        pruner = pruner_of(model, e.prune, steps)
        images = self.setting.samples
        phase = replace(e.tune, lr=rate) if rate else e.tune
        optimizer = make_optimizer(model, phase, lambda: images(e.prune.images))
        loss = make_loss(self.setting, e.tune.distil, pruner, self.dense)
        batches = self.setting.batches(TUNE)
        with kept_generators(model):
            for step in range(steps):
                optimizer.zero_grad(set_to_none=True)
                value = loss(model, batches(step))
                value.backward()
                if rate:
                    optimizer.step()
                if pruner is not None:
                    pruner.step()
                yield float(value.detach())
