"""What classifiers are trained with: whitened coordinates, decay, exact resume, what is refused."""

import pytest
import torch
from experiment_cases import experiment
from torch.nn import functional

from tvm_sparsewino.errors import ConfigError, PruneError
from tvm_sparsewino.nn import WinogradConv2d
from tvm_sparsewino.nn.data import ArraySource
from tvm_sparsewino.nn.experiments import run_experiment
from tvm_sparsewino.nn.experiments.methods import starting_point
from tvm_sparsewino.nn.experiments.networks import make_network
from tvm_sparsewino.nn.experiments.optimizers import make_optimizer
from tvm_sparsewino.nn.experiments.settings import Experiment, Phase, Pruning
from tvm_sparsewino.nn.precondition import WhitenedAdam

SMALL = {
    "network": "small-vgg",
    "network_options": {"widths": [4, 6], "depth": 1},
    "batch": 64,
    "save_every": 2,
    "dense": {"epochs": 0.5, "lr": 0.05},
    "tune": {"epochs": 0.3, "lr": 0.01, "optimizer": "whitened"},
    "prune": {"method": "one-shot", "tile": 2, "sparsity": 0.5, "images": 100},
    "cost": False,
}


@pytest.fixture
def pruned():
    """A pruned network with normalisation, and inputs of it."""
    torch.manual_seed(0)
    data = ArraySource(torch.zeros(8, 1, 16, 16, dtype=torch.uint8), torch.arange(8), 10)
    model = make_network("small-vgg", {"widths": [4, 6], "depth": 1}, data).eval()
    images = [torch.randn(16, 1, 16, 16) for _ in range(2)]
    start = starting_point(model, Pruning("one-shot", 2, 0.6), images[0], images)
    return start.train(), images


def test_whitened_training_learns_and_keeps_the_zeros(pruned):
    model, images = pruned
    phase = Phase(optimizer="whitened", lr=0.02, winograd_lr=2.0)
    running = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
    optimizer = make_optimizer(model, phase, lambda: images)
    assert isinstance(optimizer, WhitenedAdam)
    # Looking at inputs leaves the running statistics alone.
    assert running and all(torch.equal(model.get_buffer(n), b) for n, b in running.items())
    assert [g["lr"] for g in optimizer.param_groups] == [0.04, 0.02]
    assert model.training
    layers = [x for x in model.modules() if isinstance(x, WinogradConv2d)]
    zeros = [x.weight == 0 for x in layers]
    before = [x.weight.clone() for x in layers]
    labels, losses = torch.arange(16) % 10, []
    for _ in range(20):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images[0]), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    for layer, mask, old in zip(layers, zeros, before, strict=True):
        assert torch.equal(layer.weight == 0, mask) and not torch.equal(layer.weight, old)


def test_decay_takes_its_share_of_what_has_several_values_per_channel(pruned):
    model, images = pruned
    phase = Phase(optimizer="whitened", lr=0.1, weight_decay=0.5, momentum=0.5)
    optimizer = make_optimizer(model, phase, lambda: images)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        # 1 - 0.1 * 0.5; a gradient of zero moves nothing.
        wanted = before[name] * (0.95 if p.ndim > 1 else 1.0)
        assert torch.allclose(p, wanted, rtol=1e-6, atol=0), name
    assert {g["betas"] for g in optimizer.param_groups} == {(0.5, 0.99)}


def test_momentum_is_the_first_decay_of_adam(pruned):
    optimizer = make_optimizer(pruned[0], Phase(optimizer="adam", lr=0.1, momentum=0.8), list)
    assert {g["betas"] for g in optimizer.param_groups} == {(0.8, 0.999)}


def test_a_layer_without_zeros_set_cannot_be_whitened(pruned):
    model, images = pruned
    layer = next(x for x in model.modules() if isinstance(x, WinogradConv2d))
    layer.set_mask(None)
    with pytest.raises(PruneError, match="whitening needs a pruned layer"):
        make_optimizer(model, Phase(optimizer="whitened"), lambda: images)


class Killed(Exception):
    pass


def test_a_whitened_run_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    e = experiment(SMALL)
    whole = run_experiment(e, tmp_path / "whole", progress=False)
    assert whole["tune"]["step"] == 6 and whole["zeros"]["all"] == pytest.approx(0.5, abs=0.01)
    real, steps = WhitenedAdam.step, []

    def killing(self, *args):
        steps.append(self)
        if len(steps) == 5:
            raise Killed
        return real(self, *args)

    monkeypatch.setattr(WhitenedAdam, "step", killing)
    args = (e, tmp_path / "killed", tmp_path / "whole" / "dense")
    with pytest.raises(Killed):
        run_experiment(*args, progress=False)
    again = run_experiment(*args, progress=False)
    assert len(steps) == 5 + 2  # from the checkpoint after four
    assert again["fingerprint"] == whole["fingerprint"]


@pytest.mark.parametrize("method", ["continued", "activation", "dense"])
def test_zeros_that_move_or_are_not_there_are_refused(method, tmp_path):
    with pytest.raises(ConfigError, match=r"tune\.optimizer 'whitened' takes zeros that stay"):
        run_experiment(experiment(SMALL, prune__method=method), tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def test_dense_training_has_nothing_to_whiten():
    with pytest.raises(ConfigError, match=r"dense\.optimizer 'whitened' is for pruned"):
        Experiment(dense=Phase(optimizer="whitened"))
    with pytest.raises(ConfigError, match=r"momentum must be in \[0, 1\), got 1"):
        Phase(momentum=1.0)
