"""Whitened Adam, the loop with its checkpoints and log, patches, and the FFDNet recipe in small."""

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn

from tvm_sparsewino.config import PruneConfig
from tvm_sparsewino.errors import ConfigError, MissingExtra, PruneError, ShapeError, WeightsError
from tvm_sparsewino.nn import WinogradConv2d, convert
from tvm_sparsewino.nn import patches as patches_module
from tvm_sparsewino.nn.calibration import calibrate
from tvm_sparsewino.nn.ffdnet_training import FFDNetTraining, train_ffdnet, whitened_layers
from tvm_sparsewino.nn.least_squares import LeastSquares
from tvm_sparsewino.nn.models import FFDNet
from tvm_sparsewino.nn.patches import NoisyPatches, load_photos
from tvm_sparsewino.nn.precondition import WhitenedAdam, WhitenedLayer
from tvm_sparsewino.nn.second_order import prune_network
from tvm_sparsewino.nn.training import TrainConfig, distillation, fine_tune, read_log
from tvm_sparsewino.nn.weights_io import load_into


def smooth(*shape):
    return nn.functional.avg_pool2d(torch.randn(*shape), 3, 1, 1) + 0.1 * torch.randn(*shape)


def dense_net(tile=4):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    return convert(net, tile).eval()


def pruned_net(sparsity=0.7):
    dense = dense_net()
    batches = [smooth(4, 3, 16, 16) for _ in range(4)]
    return dense, prune_network(copy.deepcopy(dense), batches, sparsity, 20), batches


def batch_of(step):
    generator = torch.Generator().manual_seed(step)
    return (torch.randn(4, 3, 16, 16, generator=generator),)


def whitened(groups=1):
    layer = WinogradConv2d(4, 4, 3, 2, padding=1, groups=groups, bias=False, dtype=torch.float64)
    layer.set_mask(torch.rand(layer.weight.shape) < 0.5)
    x = smooth(4, 4, 12, 12).double()
    problem = LeastSquares(layer)
    problem.add(x, layer(x).detach())
    return layer, x, WhitenedLayer(problem)


@pytest.mark.parametrize("groups", [1, 2])
def test_whitened_steps_of_one_length_change_the_output_by_one_amount(groups):
    # rms q is 1 in every row, so a step of length s changes a channel's output by s / |q| of its
    # rms. The pull and floor in the Hessian take a little off: 5 %.
    layer, x, white = whitened(groups)
    before = layer(x)[:, :, :12, :12].detach()
    start, stop, _ = white.rows[1]
    changes = []
    for _ in range(4):
        step = torch.zeros(len(white.index), dtype=torch.float64)
        direction = torch.randn(stop - start, dtype=torch.float64)
        step[start:stop] = 0.1 * direction / direction.norm() * (stop - start) ** 0.5
        white.move(step)
        after = layer(x).detach()
        changes.append(float((after - before)[:, 1].norm() / before[:, 1].norm()))
        assert torch.equal(after[:, 0], before[:, 0])
        white.move(-step)
    assert changes == pytest.approx([0.1] * 4, rel=0.05)


def test_whitened_gradient_is_the_slope_of_whitened_steps():
    layer, x, white = whitened()
    goal = torch.randn(4, 4, 12, 12, dtype=torch.float64)

    def value():
        return (layer(x) - goal).square().mean()

    value().backward()
    gradient = white.gradient()
    step = 1e-6 * torch.randn_like(gradient)
    before = float(value().detach())
    white.move(step)
    # Quadratic term: 1e-6 of the linear one.
    assert float(value().detach()) - before == pytest.approx(float(gradient @ step), rel=1e-3)


def test_move_leaves_pruned_coefficients():
    layer, _, white = whitened()
    weight = layer.weight.detach().clone()
    white.move(torch.ones(len(white.index), dtype=torch.float64))
    moved = layer.weight.detach() != weight
    assert torch.equal(moved, layer.mask)


def test_whitened_adam_repairs_a_disturbed_network():
    dense, model, batches = pruned_net()
    batches = [(b,) for b in batches]
    loss = distillation(dense)

    def total():
        with torch.no_grad():
            return float(sum(loss(model, b) for b in batches))

    best = total()
    layers = whitened_layers(model, batches)
    with torch.no_grad():
        for layer in layers:
            layer.move(0.3 * torch.randn(len(layer.index)))
    disturbed = total()
    optimizer = WhitenedAdam(layers, lr=2e-2)
    for i in range(40):
        optimizer.zero_grad()
        loss(model, batches[i % 4]).backward()
        optimizer.step()
    # 40 steps of 0.02 can undo disturbances of 0.3 in every direction; most of the damage goes.
    assert disturbed > 1.5 * best
    assert total() - best < 0.2 * (disturbed - best)


def test_whitened_adam_updates_the_others_and_skips_what_has_no_gradient():
    _, model, batches = pruned_net()
    layers = whitened_layers(model, [(b,) for b in batches])
    optimizer = WhitenedAdam(layers, model.parameters(), lr=1e-3, lr_others=1e-2)
    assert [len(g["params"]) for g in optimizer.param_groups] == [2, 2]
    model[0](batches[0]).square().mean().backward()
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    after = model.state_dict()
    assert not torch.equal(before["0.bias"], after["0.bias"])
    assert float((before["0.bias"] - after["0.bias"]).abs().max()) == pytest.approx(1e-2, rel=1e-3)
    assert torch.equal(before["2.weight"], after["2.weight"])


def test_whitening_needs_a_pruned_network():
    model = dense_net()
    with pytest.raises(PruneError, match="prune it first"):
        whitened_layers(model, [(smooth(1, 3, 8, 8),)])
    with pytest.raises(PruneError, match="no whitened layers"):
        WhitenedAdam([])


class Stop(Exception):
    pass


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

        return fine_tune(
            model,
            optimizer,
            batch,
            distillation(dense),
            config,
            folder,
            prune=gradual,
            evaluate=lambda net: {"norm": float(net[0].weight.detach().norm())},
            resume=resume,
            progress=False,
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
    fine_tune(
        model,
        torch.optim.Adam(model.parameters(), 3e-3),
        batch_of,
        loss,
        TrainConfig(40, warmup=5, log_every=20, save_every=50),
        tmp_path,
        progress=False,
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
    return fine_tune(net, optimizer, *args, prune=prune, progress=False)


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
    fine_tune(
        model,
        torch.optim.SGD(model.parameters(), 1.0),
        lambda step: torch.ones(1, 1),
        lambda net, x: -net(x).sum(),
        TrainConfig(3, warmup=0, final=1.0, log_every=1, average=0.5),
        tmp_path,
        evaluate=lambda net: {"w": seen.append(float(net.weight.detach()))},
        progress=False,
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


def test_patches_are_random_access_and_noisy_as_told():
    photos = {"a": torch.rand(3, 70, 80), "b": torch.rand(3, 20, 90)}
    patches = NoisyPatches(photos, 32, sigmas=(10, 20), seed=3)
    late = patches.batch(7, 3)
    patches.batch(1, 2)
    for a, b in zip(late, patches.batch(7, 3), strict=True):
        assert torch.equal(a, b)
    clean, noisy, sigma = patches.batch(0, 8)
    assert clean.shape == (8, 3, 32, 32) and clean.dtype == noisy.dtype == torch.float32
    assert bool(((sigma * 255 >= 10) & (sigma * 255 <= 20)).all())
    # 3072 samples: the estimate's own deviation is 1.3 %.
    assert torch.allclose((noisy - clean).flatten(1).std(1), sigma, rtol=0.08)
    assert not torch.equal(clean[0], clean[1])
    assert not torch.equal(patches.batch(0, 1)[0], patches.batch(1, 1)[0])
    assert not torch.equal(NoisyPatches(photos, 32, seed=4).batch(7, 3)[0], late[0])
    with pytest.raises(ShapeError, match="as large as"):
        NoisyPatches(photos, 96)


def test_photos(monkeypatch):
    pytest.importorskip("skimage")
    photos = load_photos()
    assert {"astronaut.png", "coffee.png"} <= set(photos)
    assert all(x.shape[0] == 3 and x.min() >= 0 and x.max() <= 1 for x in photos.values())
    monkeypatch.setattr(patches_module, "PHOTOS", {"nothing.png": 1.0})
    with pytest.raises(MissingExtra, match="no photos"):
        load_photos()


@pytest.fixture
def small_ffdnet(monkeypatch):
    net = FFDNet(width=8, depth=4).eval()
    module = "tvm_sparsewino.nn.ffdnet_training."
    monkeypatch.setattr(module + "load_ffdnet", lambda path: copy.deepcopy(net))
    monkeypatch.setattr(module + "FFDNet", lambda: FFDNet(width=8, depth=4))
    return net


def test_ffdnet_recipe_resumes_and_writes_a_pruned_file(tmp_path, small_ffdnet):
    photos = {"a": torch.rand(3, 48, 48)}
    config = FFDNetTraining(
        sparsity=0.6,
        calibration_patches=4,
        iterations=5,
        whitening_patches=2,
        steps=4,
        batch=2,
        patch=24,
        log_every=2,
        save_every=2,
    )
    path = train_ffdnet(config, tmp_path / "a", photos=photos, progress=False)
    model = load_into(FFDNet(width=8, depth=4), path)
    inner = [x for x in model.modules() if isinstance(x, WinogradConv2d)]
    assert [type(x) for x in (model.model[0], model.model[-1])] == [nn.Conv2d] * 2
    assert len(inner) == 2
    for layer in inner:
        assert float((layer.winograd_weight == 0).float().mean()) == pytest.approx(0.6, abs=1e-3)
    lines = [json.loads(x) for x in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == [0, 2, 4] and all("held_out" in x for x in lines)

    def killed(network):
        killed.calls += 1
        if killed.calls == 2:
            raise Stop
        return {}

    killed.calls = 0
    with pytest.raises(Stop):
        train_ffdnet(config, tmp_path / "b", photos=photos, evaluate=killed, progress=False)
    again = train_ffdnet(config, tmp_path / "b", photos=photos, progress=False)
    assert again.read_bytes() == path.read_bytes()
    once = train_ffdnet(config, tmp_path / "b", resume=False, photos=photos, progress=False)
    assert once.read_bytes() == path.read_bytes()
    other = dataclasses.replace(config, sparsity=0.5)
    with pytest.raises(ConfigError, match="another configuration"):
        train_ffdnet(other, tmp_path / "b", photos=photos, progress=False)


def test_ffdnet_recipe_without_training_takes_a_pruned_file_as_it_is(tmp_path, small_ffdnet):
    photos = {"a": torch.rand(3, 48, 48)}
    config = FFDNetTraining(
        sparsity=0.6, tile=2, calibration_patches=2, iterations=2, steps=0, batch=2, patch=24
    )
    path = train_ffdnet(config, tmp_path / "a", photos=photos, progress=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "pruned.safetensors").write_bytes(path.read_bytes())
    other = dataclasses.replace(config, sparsity=0.3)
    again = train_ffdnet(other, tmp_path / "b", photos=photos, progress=False)
    assert again.read_bytes() == path.read_bytes()


def quiet(folder, loss, config):
    """Train one weight on ``loss``, from 1, with SGD at a rate of 1; returns it."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    args = (lambda step: torch.tensor([[float(step)]]), loss, config, folder)
    return float(fine_tune(model, optimizer, *args, progress=False).weight.detach())


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
