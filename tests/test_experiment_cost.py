"""What a training step costs: memory is none where it cannot be known."""

import os

import torch
from experiment_cases import experiment, grey
from torch import nn

from tvm_sparsewino.nn.distributed import Ranks
from tvm_sparsewino.nn.experiments import cost
from tvm_sparsewino.nn.experiments.cost import measure_cost
from tvm_sparsewino.nn.experiments.networks import make_network
from tvm_sparsewino.nn.experiments.phases import Setting


def test_memory_is_none_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(cost.host, "_STATUS", tmp_path / "nothing")
    monkeypatch.setattr(cost, "_REPEATS", 1)
    setting = Setting(
        experiment(batch=4),
        (grey(), grey()),
        Ranks(),
        torch.device("cpu"),
        False,
    )
    model = make_network("lenet5", {}, grey())
    assert measure_cost(setting, model, model)["memory_ratio"] is None


class Deadly(nn.Linear):
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_memory_is_none_where_the_measuring_process_dies():
    batch = (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    setting = Setting(experiment(), (grey(), grey()), Ranks(), torch.device("cpu"), False)
    assert cost._peak(Deadly(3, 2), batch, setting) is None
