"""Calibrated scales, schedules, criteria, budgets, regrowth and state of the native pruner."""

import copy

import pytest
import torch
from torch import nn

from tvm_sparsewino.config import PruneConfig
from tvm_sparsewino.errors import ConfigError, PruneError
from tvm_sparsewino.nn import NativePruner, WinogradConv2d, convert
from tvm_sparsewino.nn.calibration import (
    calibrate,
    is_calibrated,
    measure_gains,
    transformed_input,
)


def small_net(tile=2, groups=1, calibrated=True):
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    )
    net = convert(net, tile).eval()
    if calibrated:
        calibrate(net, [torch.randn(2, 4, 12, 12)])
    return net


def zeros(layer):
    return float((layer.winograd_weight == 0).double().mean())


def train_step(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(2, 4, 8, 8)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("tile", [2, 4])
def test_gain_is_the_outputs_change_for_a_unit_change_of_a_coefficient(tile):
    # On maps of whole tiles, by perturbing single coefficients; linear, so float32 rounding only.
    layer = WinogradConv2d(3, 2, 3, tile, padding=1, bias=False)
    model = nn.Sequential(layer)
    x = torch.randn(3, 3, 8, 8) + 1
    gains = measure_gains(model, [x[:2], x[2:]])["0"]
    assert gains.shape == (layer.algorithm.coordinates, 3)
    per_tile = tile**2
    for coordinate, channel in ((0, 0), (5, 2), (layer.algorithm.coordinates - 1, 1)):
        changed = copy.deepcopy(layer)
        with torch.no_grad():
            changed.weight[coordinate, 0, channel] += changed.scale[coordinate, 0, 0]
            power = (changed(x) - layer(x))[:, 0].square().mean() * per_tile
        assert float(gains[coordinate, channel]) == pytest.approx(float(power.sqrt()), rel=1e-3)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_calibrate_keeps_the_function_and_sets_measured_scales(groups):
    model = small_net(groups=groups, calibrated=False)
    x = torch.randn(2, 4, 12, 12)
    before = model(x).detach()
    gains = measure_gains(model, [x])
    calibrate(model, [x])
    assert torch.allclose(model(x).detach(), before, rtol=0, atol=1e-5 * float(before.abs().max()))
    layer = model[2]
    assert is_calibrated(layer)
    scale = layer.scale.expand(layer.weight.shape)
    group, kg, cg = groups - 1, 8 // groups, 8 // groups
    last = scale[:, group * kg, cg - 1]
    # Nothing is near zero here, so the floor does not act.
    assert torch.allclose(last, gains["2"][:, group * cg + cg - 1])


def test_dead_channels_get_a_floor():
    model = small_net(calibrated=False)
    x = torch.randn(2, 4, 12, 12)
    x[:, 1] = 0
    calibrate(model, [x])
    scale = model[0].scale[:, 0]
    assert torch.allclose(scale[:, 1], 0.05 * scale.median(dim=1).values, rtol=0.5)
    assert bool((scale > 0).all())


def test_calibration_that_cannot_be():
    model = small_net(calibrated=False)
    with pytest.raises(PruneError, match="'0': its input is zero"):
        calibrate(model, [torch.zeros(1, 4, 8, 8)])
    with pytest.raises(PruneError, match=r"do not reach layers \['0', '2'\]"):
        measure_gains(model, [])
    with pytest.raises(PruneError, match="no Winograd layer"):
        calibrate(nn.Sequential(nn.ReLU()), [torch.zeros(1)])


def test_padding_mode_is_part_of_what_a_layer_sees():
    layer = WinogradConv2d(2, 2, 3, 2, padding=1, padding_mode="replicate")
    v = transformed_input(layer, torch.ones(1, 2, 4, 4))
    # A constant map stays constant, so every tile is the same.
    assert torch.equal(v, v[:, :1].expand_as(v))


def test_schedule_is_cubic_and_exact():
    model = small_net()
    config = PruneConfig(sparsity=0.8, initial_sparsity=0.2, start_step=2, end_step=10)
    pruner = NativePruner(model, config)
    assert pruner.target == 0
    seen = []
    for _ in range(12):
        pruner.step()
        seen.append((pruner.target, pruner.sparsity))
    assert seen[0] == (0.0, 0.0)
    assert seen[1][0] == pytest.approx(0.2)
    assert seen[5][0] == pytest.approx(0.8 - 0.6 * 0.5**3)
    assert seen[9][0] == seen[11][0] == 0.8
    # Counts are rounded per layer: half a coefficient of the smaller one.
    for target, sparsity in seen:
        assert sparsity == pytest.approx(target, abs=0.5 / model[0].weight.numel() + 1e-12)


def test_every_skips_updates_but_not_the_last():
    model = small_net()
    pruner = NativePruner(model, PruneConfig(sparsity=0.5, end_step=10, every=4))
    levels = []
    for _ in range(10):
        pruner.step()
        levels.append(pruner.sparsity)
    assert levels[:3] == [0.0] * 3
    assert levels[3] == levels[6] > 0
    assert levels[7] == levels[8] > levels[6]
    assert levels[9] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("criterion", ["activation", "white", "authors"])
def test_what_is_smallest_by_the_criterion_goes(criterion):
    model = small_net(tile=4)
    layer = model[2]
    u = layer.winograd_weight.detach().clone()
    weights = {
        "activation": layer.scale,
        "white": torch.from_numpy(layer.algorithm.importance()).float().view(-1, 1, 1),
        "authors": torch.from_numpy(layer.algorithm.output_gain()).float().view(-1, 1, 1),
    }
    score = u.abs() * weights[criterion]
    NativePruner(model, PruneConfig(sparsity=0.7, criterion=criterion, end_step=1)).step()
    gone = layer.winograd_weight == 0
    assert zeros(layer) == pytest.approx(0.7, abs=1e-3)
    assert float(score[gone].max()) <= float(score[~gone].min()) * (1 + 1e-5)


def test_global_budget_spares_the_layer_that_needs_more():
    model = small_net()
    with torch.no_grad():
        # All power of this layer in a few coefficients: the rest can go.
        model[0].weight.mul_(1e-3)
        model[0].weight[:, :, 0] *= 1e4
    pruner = NativePruner(model, PruneConfig(sparsity=0.5, budget="global", end_step=1))
    pruner.step()
    assert pruner.sparsity == pytest.approx(0.5, abs=1e-3)
    assert zeros(model[0]) > 0.7
    assert zeros(model[2]) < 0.5


@pytest.mark.parametrize("regrow", [True, False])
def test_regrowth(regrow):
    model = small_net()
    config = PruneConfig(sparsity=0.5, initial_sparsity=0.5, end_step=2, regrow=regrow)
    pruner = NativePruner(model, config)
    pruner.step()
    layer = model[2]
    gone = ~layer.mask
    with torch.no_grad():
        # What is alive becomes smaller than what was pruned.
        layer.weight[layer.mask] *= 1e-6
    pruner.step()
    assert zeros(layer) == 0.5
    assert bool(layer.mask[gone].all()) == regrow
    assert bool((~layer.mask)[gone].all()) == (not regrow)


def has_structure(layer, structure):
    """Whether exactly the zeros of the layer keep to the structure."""
    alive = layer.winograd_weight != 0
    if structure == "kernel":
        return bool((alive == alive[:1]).all())
    if structure == "balanced":
        return len(set(alive.sum(2).flatten().tolist())) == 1
    rows = alive.view(alive.shape[0], -1, int(structure[-1]), alive.shape[2])
    return bool((rows == rows[:, :, :1]).all())


@pytest.mark.parametrize("structure", ["balanced", "rows2", "rows4", "kernel"])
@pytest.mark.parametrize("criterion", ["activation", "white", "authors"])
def test_zeros_keep_to_the_structure_at_every_update(structure, criterion):
    model = small_net(groups=2)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    config = PruneConfig(0.5, criterion, end_step=4, structure=structure)
    pruner = NativePruner(model, config)
    for _ in range(6):
        train_step(model, optimizer)
        pruner.step()
        if criterion != "authors" or pruner.steps >= config.end_step:
            assert all(has_structure(x, structure) for x in pruner.layers.values())
    assert pruner.sparsity == pytest.approx(0.5, abs=1e-2)


@pytest.mark.parametrize("structure", ["balanced", "rows4", "kernel"])
def test_structured_zeros_return_only_with_regrow(structure):
    for regrow in (True, False):
        model = small_net()
        config = PruneConfig(0.5, "white", "layer", 0, 2, 0.5, 1, regrow, structure)
        pruner = NativePruner(model, config)
        pruner.step()
        layer = model[2]
        gone = ~layer.mask
        with torch.no_grad():
            layer.weight[layer.mask] *= 1e-6
        pruner.step()
        assert zeros(layer) == 0.5 and has_structure(layer, structure)
        assert torch.equal(~layer.mask, gone) == (not regrow)


def test_without_regrow_zeros_of_an_earlier_run_stay():
    """Masks that do not keep to the structure: units with survivors stay, their zeros as well."""
    model = small_net()
    NativePruner(model, PruneConfig(0.3, "white", end_step=1)).step()
    before = [model[i].mask.clone() for i in (0, 2)]
    config = PruneConfig(0.3, "white", end_step=1, regrow=False, structure="rows2")
    NativePruner(model, config).step()
    for i, mask in zip((0, 2), before, strict=True):
        assert not bool((model[i].mask & ~mask).any()) and zeros(model[i]) > 0.3


@pytest.mark.parametrize("structure", ["rows2", "rows4", "kernel"])
def test_global_budget_with_a_structure(structure):
    model = small_net()
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
        model[0].weight[:, :, 0] *= 1e4
    config = PruneConfig(0.5, budget="global", end_step=1, structure=structure)
    pruner = NativePruner(model, config)
    pruner.step()
    assert pruner.sparsity == pytest.approx(0.5, abs=1e-2)
    assert zeros(model[0]) > 0.7 and all(has_structure(x, structure) for x in (model[0], model[2]))


def test_pruned_coefficients_stay_zero_while_training_goes_on():
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    pruner = NativePruner(model, PruneConfig(sparsity=0.5, end_step=1))
    for _ in range(4):
        train_step(model, optimizer)
        pruner.step()
    mask = model[2].mask.clone()
    train_step(model, optimizer)
    assert torch.equal(model[2].winograd_weight == 0, ~mask)


def test_authors_recipe_has_no_mask_until_the_end():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), 1e-1)
    pruner = NativePruner(model, PruneConfig(sparsity=0.5, criterion="authors", end_step=3))
    train_step(model, optimizer)
    pruner.step()
    layer = model[2]
    assert layer.mask is None
    dead = layer.weight == 0
    assert bool(dead.any())
    train_step(model, optimizer)
    assert bool((layer.weight[dead] != 0).any())
    pruner.step()
    pruner.step()
    assert zeros(layer) == pytest.approx(0.5, abs=1e-3)
    assert torch.equal(layer.mask, layer.weight != 0)


def test_authors_threshold_spares_what_the_loss_pulls_at():
    model = small_net(tile=4)
    factor = 10.0
    config = PruneConfig(
        0.7, "authors", end_step=2, parameters="plain", max_threshold_factor=factor
    )
    pruner = NativePruner(model, config)
    layer = model[2]
    assert torch.equal(layer.scale, torch.ones_like(layer.scale))
    model(torch.randn(2, 4, 8, 8)).square().sum().backward()
    u = layer.winograd_weight.detach().clone()
    gain = torch.from_numpy(layer.algorithm.output_gain()).float().view(-1, 1, 1)
    # With scale 1 the parameter is U and its gradient is U's.
    score = u.abs() * gain * (layer.weight.grad.abs() + 1 / factor)
    pruner.step()
    gone = layer.winograd_weight == 0
    assert float(score[gone].max()) <= float(score[~gone].min()) * (1 + 1e-5)
    blind = (u.abs() * gain)[gone].max() <= (u.abs() * gain)[~gone].min()
    assert not bool(blind)
    model.zero_grad()
    with pytest.raises(PruneError, match="'0' has no gradient: step"):
        pruner.step()


def test_l1_is_part_of_the_loss_while_sparsity_rises():
    model = small_net()
    config = PruneConfig(0.5, "authors", end_step=1, parameters="plain", l1=0.25)
    pruner = NativePruner(model, config)
    want = 0.25 * sum(float(x.winograd_weight.detach().abs().sum()) for x in (model[0], model[2]))
    penalty = pruner.penalty()
    assert float(penalty.detach()) == pytest.approx(want, rel=1e-5)
    penalty.backward()
    assert torch.equal(model[2].weight.grad, 0.25 * model[2].weight.sign())
    pruner.step()
    assert pruner.penalty() == 0
    assert NativePruner(model, PruneConfig()).penalty() == 0


@pytest.mark.parametrize("regrow", [True, False])
def test_resume_gives_the_same_run(regrow):
    config = PruneConfig(sparsity=0.7, end_step=8, every=2, regrow=regrow)

    def steps(model, pruner, first, last):
        for i in range(first, last):
            generator = torch.Generator().manual_seed(i)
            with torch.no_grad():
                for layer in (model[0], model[2]):
                    layer.weight.add_(0.05 * torch.randn(layer.weight.shape, generator=generator))
            pruner.step()

    start = small_net()
    whole = copy.deepcopy(start)
    steps(whole, NativePruner(whole, config), 0, 10)

    first = copy.deepcopy(start)
    pruner = NativePruner(first, config)
    steps(first, pruner, 0, 5)
    saved = copy.deepcopy((first.state_dict(), pruner.state_dict()))

    second = small_net()
    second.load_state_dict(saved[0])
    pruner = NativePruner(second, config)
    pruner.load_state_dict(saved[1])
    assert pruner.steps == 5
    steps(second, pruner, 5, 10)
    for name in ("0", "2"):
        a, b = whole.get_submodule(name), second.get_submodule(name)
        assert torch.equal(a.winograd_weight, b.winograd_weight)
        assert torch.equal(a.mask, b.mask)


def test_state_of_another_run_is_refused():
    model = small_net()
    pruner = NativePruner(model, PruneConfig(sparsity=0.5))
    with pytest.raises(PruneError, match="expected the state of"):
        pruner.load_state_dict(NativePruner(model, PruneConfig(sparsity=0.6)).state_dict())
    for bad in ({}, {"steps": -1, "config": {}}, {"steps": "1", "config": {}}):
        with pytest.raises(PruneError, match="no state"):
            pruner.load_state_dict(bad)


def test_what_cannot_be_pruned():
    with pytest.raises(PruneError, match=r"no Winograd layer: convert\(model"):
        NativePruner(nn.Sequential(nn.Conv2d(3, 3, 3)), PruneConfig())
    with pytest.raises(PruneError, match=r"layers \['0', '2'\] have none: calibrate"):
        NativePruner(small_net(calibrated=False), PruneConfig())
    NativePruner(small_net(calibrated=False), PruneConfig(criterion="white"))
    for sparsity in (1.0, -0.1, float("nan"), "half"):
        with pytest.raises(ConfigError, match=r"sparsity must be in \[0, 1\)"):
            PruneConfig(sparsity=sparsity)


@pytest.mark.parametrize("unknown", [float("inf"), -float("inf"), float("nan")])
def test_gradients_of_a_skipped_step_count_as_zero(unknown):
    config = PruneConfig(
        0.6, "authors", end_step=1, parameters="plain", max_threshold_factor=10.0, every=1
    )
    start = small_net(calibrated=False)
    weights = []
    for value in (0.0, unknown):
        model = copy.deepcopy(start)
        pruner = NativePruner(model, config)
        for layer in pruner.layers.values():
            layer.weight.grad = torch.ones_like(layer.weight)
            layer.weight.grad[::2] = value
        pruner.step()
        weights.append([x.weight.detach() for x in pruner.layers.values()])
        assert all(zeros(x) == pytest.approx(0.6, abs=0.01) for x in pruner.layers.values())
    for have, want in zip(weights[1], weights[0], strict=True):
        assert torch.equal(have, want)
