"""Whitened coordinates: equal steps change the output equally, and zeros stay."""

import copy

import pytest
import torch
from training_cases import dense_net, pruned_net, smooth

from tvm_sparsewino.errors import PruneError
from tvm_sparsewino.nn import WinogradConv2d
from tvm_sparsewino.nn.ffdnet_training import whitened_layers
from tvm_sparsewino.nn.least_squares import LeastSquares
from tvm_sparsewino.nn.precondition import WhitenedAdam, WhitenedLayer
from tvm_sparsewino.nn.training import distillation


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
