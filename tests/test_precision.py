"""Mixed precision is what is measured where it is what is trained in."""

import pytest
import torch
from torch import nn

from tvm_sparsewino.nn.data import ArraySource
from tvm_sparsewino.nn.distributed import Ranks
from tvm_sparsewino.nn.experiments import cost, reading
from tvm_sparsewino.nn.experiments.phases import Setting
from tvm_sparsewino.nn.experiments.precision import mixed


class Watched(nn.Module):
    """A network that notes in which precision it computes."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(64, 10), []

    def forward(self, x):
        y = self.layer(x.flatten(1))
        self.seen.append(y.dtype)
        return y


@pytest.mark.parametrize(
    ("precision", "kind"),
    [
        ("float32", torch.float32),
        ("float64", torch.float64),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    ],
)
def test_a_step_is_measured_in_the_precision_of_training(precision, kind, monkeypatch):
    monkeypatch.setattr(cost, "_REPEATS", 1)
    monkeypatch.setattr(cost, "_peak", lambda *_: None)
    images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
    data = ArraySource(images, torch.arange(8), 10)
    e = reading.build({"batch": 4, "precision": precision})
    setting = Setting(e, (data, data), Ranks(), torch.device("cpu"), False)
    parameters = torch.float64 if precision == "float64" else torch.float32
    model, seen = Watched().to(parameters), []
    model.seen = seen
    # The networks are copied before they run; the list is not.
    monkeypatch.setattr(cost.copy, "deepcopy", lambda x: x)
    found = cost.measure_cost(setting, model, model)
    assert set(seen) == {kind} and len(seen) == 4
    assert found["time_ratio"] > 0 and found["memory_ratio"] is None


def test_precision_outside_is_what_it_was():
    x, w = torch.ones(2, 2), torch.ones(2, 2)
    with mixed("bfloat16", torch.device("cpu")):
        assert (x @ w).dtype == torch.bfloat16
    with mixed("float32", torch.device("cpu")):
        assert (x @ w).dtype == torch.float32
    assert (x @ w).dtype == torch.float32


SEEN = []


class Noting(nn.Linear):
    """Notes what it computes in where copies of it do so too."""

    def forward(self, x):
        y = super().forward(x)
        SEEN.append(y.dtype)
        return y


@pytest.mark.skipif(
    not cost.host.can_reset_peak(), reason="this system does not tell a process's peak"
)
def test_the_peak_is_of_the_precision_too():
    arrays = [torch.ones(8, 16).numpy(), torch.zeros(8, dtype=torch.int64).numpy()]
    for precision, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        SEEN.clear()
        cost._peak_here(Noting(16, 10), arrays, torch.get_num_threads(), precision)
        assert set(SEEN) == {kind}
