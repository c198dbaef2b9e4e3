"""Training of pruned networks: resumed, distilled, logged; zeros stay, others are refused."""

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn
from training_cases import Stop, pruned_net, train

from tvm_sparsewino.config import PruneConfig
from tvm_sparsewino.errors import ConfigError, WeightsError
from tvm_sparsewino.nn.calibration import calibrate
from tvm_sparsewino.nn.ffdnet_training import FFDNetTraining, whitened_layers
from tvm_sparsewino.nn.precondition import WhitenedAdam
from tvm_sparsewino.nn.training import TrainConfig, distillation, read_log


def batch_of(step):
    generator = torch.Generator().manual_seed(step)
    return (torch.randn(4, 3, 16, 16, generator=generator),)


@pytest.mark.parametrize("optimiser", ["whitened", "gradual"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, optimiser):
    dense, start, batches = pruned_net()
    if optimiser == "gradual":
        start = copy.deepcopy(dense)
        calibrate(start, batches)
    config = TrainConfig(9, warmup=2, log_every=2, save_every=3, average=0.9)
    gradual = PruneConfig(sparsity=0.5, end_step=6) if optimiser == "gradual" else None

    def run(folder, kill_at=None, resume=True):
        model = copy.deepcopy(start)
        if optimiser == "whitened":
            layers = whitened_layers(model, [(b,) for b in batches])
            optimizer = WhitenedAdam(layers, model.parameters())
        else:
            optimizer = torch.optim.Adam(model.parameters(), 1e-3)

        def batch(step):
            if step == kill_at:
                raise Stop
            return batch_of(step)

        return train(
            model,
            optimizer,
            batch,
            distillation(dense),
            config,
            folder,
            prune=gradual,
            evaluate=lambda net: {"norm": float(net[0].weight.detach().norm())},
            resume=resume,
        )

    whole = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "killed", kill_at=8)
    again = run(tmp_path / "killed")
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    logs = []
    for name in ("whole", "killed"):
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        logs.append([{k: v for k, v in json.loads(x).items() if "seconds" not in k} for x in lines])
    assert logs[0] == logs[1]
    assert [x["step"] for x in logs[0]] == [0, 2, 4, 6, 8, 9]
    assert not list((tmp_path / "killed").glob(".*"))
    # What is finished is not done again, unless it is asked for.
    run(tmp_path / "killed", kill_at=0)
    with pytest.raises(Stop):
        run(tmp_path / "killed", kill_at=0, resume=False)


def test_distillation_brings_the_networks_together(tmp_path):
    dense, model, _ = pruned_net()
    loss = distillation(dense, relative_to=lambda batch, wanted: wanted.square().flatten(1).mean(1))
    train(
        model,
        torch.optim.Adam(model.parameters(), 3e-3),
        batch_of,
        loss,
        TrainConfig(40, warmup=5, log_every=20, save_every=50),
        tmp_path,
    )
    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    # Running means after 20 and 40 steps.
    assert lines[2]["loss"] < lines[1]["loss"]
    assert all(p.grad is None for p in dense.parameters())


def checkpoint(folder, config, model=None, prune=None):
    _, net, _ = pruned_net()
    net = net if model is None else model
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    args = (batch_of, lambda m, b: m(*b).square().mean(), config, folder)
    return train(net, optimizer, *args, prune=prune)


def test_checkpoints_of_other_runs_are_refused(tmp_path):
    config = TrainConfig(1)
    checkpoint(tmp_path, config)
    with pytest.raises(WeightsError, match="expected a run with"):
        checkpoint(tmp_path, TrainConfig(2))
    with pytest.raises(WeightsError, match="another network"):
        checkpoint(tmp_path, config, model=nn.Sequential(nn.Conv2d(3, 3, 3)))
    prune = PruneConfig(sparsity=0.1, criterion="white")
    with pytest.raises(WeightsError, match=r"checkpoint\.pt: only one of"):
        checkpoint(tmp_path, config, prune=prune)
    (tmp_path / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        checkpoint(tmp_path, config)


def test_a_run_goes_on_however_often_it_was_saved(tmp_path):
    one, other = TrainConfig(3, log_every=1, save_every=1), TrainConfig(3, log_every=1)
    done = checkpoint(tmp_path, one)
    again = checkpoint(tmp_path, other)  # from the last checkpoint: there is nothing left to do
    for a, b in zip(done.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_rates():
    config = TrainConfig(100, warmup=10, final=0.1)
    rates = [config.rate(i) for i in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=0.03)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert TrainConfig(10, warmup=0).rate(0) == 1


def test_the_mean_is_what_is_evaluated_and_returned(tmp_path):
    # One parameter that jumps by one per step: SGD on a constant slope.
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    seen = []
    train(
        model,
        torch.optim.SGD(model.parameters(), 1.0),
        lambda step: torch.ones(1, 1),
        lambda net, x: -net(x).sum(),
        TrainConfig(3, warmup=0, final=1.0, log_every=1, average=0.5),
        tmp_path,
        evaluate=lambda net: {"w": seen.append(float(net.weight.detach()))},
    )
    # Decays 1/10, 2/11 and 3/12 while the mean is young: all below 0.5.
    want = [0.0]
    for step in range(3):
        decay = (step + 1) / (step + 10)
        want.append(decay * want[-1] + (1 - decay) * (step + 1))
    assert seen == pytest.approx(want)
    assert float(model.weight.detach()) == pytest.approx(want[-1])


def test_options_out_of_range():
    for bad in ({"steps": 0}, {"steps": 1, "save_every": 0}, {"steps": 1, "warmup": -1}):
        with pytest.raises(ConfigError, match="at least 1"):
            TrainConfig(**bad)
    with pytest.raises(ConfigError, match="average"):
        TrainConfig(1, average=1.0)
    with pytest.raises(ConfigError, match="final"):
        TrainConfig(1, final=2)
    with pytest.raises(ConfigError, match="sparsity"):
        FFDNetTraining(sparsity=1.0)
    with pytest.raises(ConfigError, match="multiple of 8"):
        FFDNetTraining(patch=100)
    with pytest.raises(ConfigError, match="at least 1"):
        FFDNetTraining(batch=0)


def quiet(folder, loss, config):
    """Train one weight on ``loss``, from 1, with SGD at a rate of 1; returns it."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    args = (lambda step: torch.tensor([[float(step)]]), loss, config, folder)
    return float(train(model, optimizer, *args).weight.detach())


def test_a_gradient_is_cut_to_twice_its_mean(tmp_path):
    def slope(net, x):
        return -net.weight.sum() * (1.0 if x < 2 else 10.0)

    config = TrainConfig(3, warmup=0, final=1.0)
    # 1, 1, and 2 instead of 10.
    assert quiet(tmp_path / "a", slope, config) == pytest.approx(5.0)
    uncut = dataclasses.replace(config, cut=0.0)
    assert quiet(tmp_path / "b", slope, uncut) == pytest.approx(13.0)
    with pytest.raises(ConfigError, match="cut"):
        TrainConfig(1, cut=-1.0)


def test_what_layers_draw_depends_on_the_step_alone(tmp_path):
    drawn = {}

    def noisy(name):
        def loss(net, x):
            drawn.setdefault(name, []).append(torch.rand(1).item())
            return net.weight.sum()

        return loss

    config = TrainConfig(4, seed=5, save_every=2)
    torch.manual_seed(1)
    nn.Linear(1, 1, bias=False)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    quiet(tmp_path / "a", noisy("a"), config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    quiet(tmp_path / "b", noisy("b"), config)
    assert drawn["a"] == drawn["b"] and len(set(drawn["a"])) == 4
    quiet(tmp_path / "c", noisy("c"), dataclasses.replace(config, seed=6))
    assert not set(drawn["c"]) & set(drawn["a"])


def test_a_log_that_was_cut_short_is_read(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0}\n{"step": 2}\n{"st')
    assert read_log(path) == [{"step": 0}, {"step": 2}]


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match=r"'config'.* are missing"):
        checkpoint(tmp_path, TrainConfig(1))
