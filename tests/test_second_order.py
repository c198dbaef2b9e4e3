"""One-shot pruning against brute force: the problem, the solution on a support, whole networks."""

import copy

import pytest
import torch
from torch import nn

from tvm_sparsewino import host
from tvm_sparsewino.errors import PruneError, ShapeError
from tvm_sparsewino.nn import WinogradConv2d, convert, second_order
from tvm_sparsewino.nn.least_squares import PRIOR, LeastSquares, coefficients_of, needed_bytes
from tvm_sparsewino.nn.masks import choose_masks
from tvm_sparsewino.nn.second_order import output_gains, prune_network
from tvm_sparsewino.nn.sparse_solution import Normalised, keep_largest
from tvm_sparsewino.structure import detect_structure


def small_net(groups=1, width=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.Conv2d(width, 3, 3, padding=1),
    )


def smooth(*shape):
    """Inputs with most of their power in low frequencies, as photographs have it."""
    return nn.functional.avg_pool2d(torch.randn(*shape), 3, 1, 1) + 0.1 * torch.randn(*shape)


def by_magnitude(dense, sparsity, structure="unstructured"):
    """The network without its smallest parameters, nothing compensated."""
    model = copy.deepcopy(dense)
    for layer in (x for x in model.modules() if isinstance(x, WinogradConv2d)):
        scores = {"": layer.weight.detach().abs()}
        layer.set_mask(choose_masks(scores, {"": layer.groups}, sparsity, structure, "layer")[""])
    return model


def layer_error(layer, u, x, wanted):
    changed = copy.deepcopy(layer)
    with torch.no_grad():
        changed.weight.copy_(u * changed.scale)
        return float((changed(x) - wanted).square().sum())


@pytest.fixture
def problem():
    layer = WinogradConv2d(4, 6, 3, 2, padding=1, groups=2, bias=False, dtype=torch.float64)
    x = smooth(4, 4, 10, 12).double()
    wanted = layer(x).detach() + 0.1 * torch.randn(4, 6, 10, 12, dtype=torch.float64)
    found = LeastSquares(layer)
    for part_x, part_y in zip(x.split(3), wanted.split(3), strict=True):
        found.add(part_x, part_y)
    return layer, x, wanted, found


def test_objective_is_the_error_of_the_layers_output(problem):
    # H and r against the layer itself: a step's change of the quadratic form is its change of the
    # squared error in the output. The two terms that are added on purpose, the pull towards the
    # old coefficients and the floor under dead inputs, are taken out. float64, so 1e-9.
    layer, x, wanted, found = problem
    u = layer.winograd_weight.detach()
    step = 0.3 * torch.randn_like(u)
    expected = layer_error(layer, u + step, x, wanted) - layer_error(layer, u, x, wanted)
    have = 0.0
    for g in range(2):
        part = found.normalised(g)
        rows = step[:, 3 * g : 3 * g + 3].transpose(1, 2).reshape(-1, 3)
        d = rows * part.size[:, None]
        slope = part.hessian @ part.old - part.target
        change = (d * (part.hessian @ d)).sum() + 2 * (d * slope).sum()
        have += float(change - PRIOR * d.square().sum())
    assert have * found.tiles == pytest.approx(expected, rel=1e-9)


def test_mean_error_is_what_the_outputs_lack(problem):
    layer, x, wanted, found = problem
    u = layer.winograd_weight.detach() * 1.3
    changed = copy.deepcopy(layer)
    with torch.no_grad():
        changed.weight.mul_(1.3)
        want = (wanted - changed(x)).mean((0, 2, 3))
    assert torch.allclose(found.mean_error(u), want, rtol=0, atol=1e-12)


def test_solution_on_a_support_beats_every_change_of_it(problem):
    layer, x, wanted, found = problem
    rows = []
    for g in range(2):
        part = found.normalised(g)
        mask = part.choose(0.6, 20)
        assert int((~mask).sum()) == round(0.6 * mask.numel())
        rows.append(part.solve(mask))
        assert torch.equal(rows[-1] != 0, mask)
    u = coefficients_of(rows, layer)
    best = layer_error(layer, u, x, wanted)
    for _ in range(20):
        # Steps large enough that the pull towards the old coefficients does not matter.
        moved = u + 0.05 * torch.randn_like(u) * u.abs().mean() * (u != 0)
        assert layer_error(layer, moved, x, wanted) > best


def test_refining_goes_down_to_the_solution(problem):
    part = problem[3].normalised(0)
    mask = part.choose(0.6, 20)
    best = part.solve(mask) * part.size[:, None]

    def value(w):
        return float((w * (part.hessian @ w)).sum() - 2 * (w * part.target).sum())

    start = part.old * mask
    values = [value(part.refined(start, steps)) for steps in (0, 3, 10, 200)]
    assert values[0] > values[1] > values[2] >= values[3]
    assert values[3] == pytest.approx(value(best), rel=1e-6)
    assert torch.equal(part.refined(start, 5) != 0, mask)


def test_search_beats_dropping_the_smallest():
    # Where it counts: a spatially trained kernel under F(4,3), whose coefficients cancel.
    layer = WinogradConv2d(12, 12, 3, 4, padding=1, bias=False)
    x = smooth(8, 12, 24, 24)
    wanted = layer(x).detach()
    found = LeastSquares(layer)
    found.add(x, wanted)
    part = found.normalised(0)
    masks = part.choose(0.8, 60), keep_largest(part.old.abs(), 0.8)
    errors = [
        layer_error(layer, coefficients_of([part.solve(mask)], layer), x, wanted) for mask in masks
    ]
    assert errors[0] < 0.8 * errors[1]


def test_important_channels_keep_more(problem):
    part = problem[3].normalised(0)
    mask = part.choose(0.5, 20, torch.tensor([1.0, 1.0, 20.0]))
    left = mask.sum(0)
    assert left[2] > left[0] and left[2] > left[1]


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.999])
def test_keep_largest_is_exact_also_among_equals(sparsity):
    scores = torch.ones(10, 10)
    scores[0, :5] = 2
    mask = keep_largest(scores, sparsity)
    assert int((~mask).sum()) == round(sparsity * 100)
    if sparsity < 0.9:
        assert mask[0, :5].all()


def test_tiles_that_reach_beyond_the_map_count_with_the_outputs_they_have():
    layer = WinogradConv2d(2, 2, 3, 4, padding=1, bias=False, dtype=torch.float64)
    found = LeastSquares(layer)
    x = torch.randn(2, 2, 9, 11, dtype=torch.float64)
    wanted = layer(x).detach() + 0.1 * torch.randn(2, 2, 9, 11, dtype=torch.float64)
    found.add(x, wanted)
    assert found.tiles == 2 * 3 * 3 and found.outputs == 2 * 9 * 11
    u = layer.winograd_weight.detach()
    step = 0.3 * torch.randn_like(u)
    expected = layer_error(layer, u + step, x, wanted) - layer_error(layer, u, x, wanted)
    part = found.normalised(0)
    d = step.transpose(1, 2).reshape(-1, 2) * part.size[:, None]
    slope = part.hessian @ part.old - part.target
    change = (d * (part.hessian @ d)).sum() + 2 * (d * slope).sum() - PRIOR * d.square().sum()
    assert float(change) * found.tiles == pytest.approx(expected, rel=1e-9)


def test_maps_smaller_than_a_tile_can_be_pruned():
    layer = WinogradConv2d(3, 4, 3, 4, padding=1, bias=False)
    x = torch.randn(60, 3, 2, 3)
    found = LeastSquares(layer)
    found.add(x, layer(x).detach())
    part = found.normalised(0)
    u = coefficients_of([part.solve(part.choose(0.5, 20))], layer)
    power = float(layer(x).detach().square().sum())
    assert layer_error(layer, u, x, layer(x).detach()) < 0.05 * power


def test_output_that_is_not_of_the_input():
    layer = WinogradConv2d(2, 2, 3, 4, padding=1)
    with pytest.raises(ShapeError, match="an output 9x8 does not belong"):
        LeastSquares(layer).add(torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 9, 8))


def test_solution_where_single_precision_fails():
    v = torch.randn(150, 2, generator=torch.Generator().manual_seed(0))
    block = v @ v.t()
    block.diagonal().add_(3e-6)
    assert int(torch.linalg.cholesky_ex(block).info) > 0
    target = block @ torch.ones(150, 1)
    problem = Normalised(block, target, torch.ones(150), torch.zeros(150, 1))
    w = problem.solve(torch.ones(150, 1, dtype=torch.bool))
    assert float((block @ w - target).norm() / target.norm()) < 1e-4


def test_no_data_and_zero_data():
    layer = WinogradConv2d(2, 2, 3, 2, padding=1)
    with pytest.raises(PruneError, match="no calibration data"):
        LeastSquares(layer).normalised(0)
    found = LeastSquares(layer)
    found.add(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(PruneError, match="zero on all"):
        found.normalised(0)


@pytest.mark.parametrize(("tile", "groups"), [(2, 1), (4, 1), (2, 2)])
def test_network_keeps_its_function_far_better_than_by_magnitude(tile, groups):
    dense = convert(small_net(groups), tile).eval()
    batches = [smooth(4, 3, 24, 24) for _ in range(4)]
    told = []
    model = prune_network(
        copy.deepcopy(dense), batches, 0.6, 30, lambda name, lost: told.append((name, lost))
    )
    plain = by_magnitude(dense, 0.6)
    x = smooth(4, 3, 24, 24)
    with torch.no_grad():
        want = dense(x)
        errors = [float((net(x) - want).square().mean()) for net in (model, plain)]
    assert errors[0] < 0.3 * errors[1]
    assert [name for name, _ in told] == ["0", "2", "4"]
    assert all(0 <= lost < 0.5 for _, lost in told)
    for name in ("0", "2", "4"):
        layer = model.get_submodule(name)
        zeros = (layer.winograd_weight == 0).float().mean()
        assert float(zeros) == pytest.approx(0.6, abs=1 / layer.weight[..., 0].numel())
        assert torch.equal(layer.mask, layer.winograd_weight != 0)


def test_sparsity_per_layer():
    model = convert(small_net(), 2).eval()
    shares = {"0": 0.2, "2": 0.8, "4": 0.0}
    prune_network(model, [smooth(2, 3, 16, 16)], shares, 10)
    for name, share in shares.items():
        zeros = (model.get_submodule(name).winograd_weight == 0).float().mean()
        assert float(zeros) == pytest.approx(share, abs=0.01)


class Twice(nn.Module):
    """One layer that runs twice with an activation in place behind it, and a residual."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.other = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.mode = "twice"

    def forward(self, x):
        if self.mode == "skips":
            return self.conv(x)
        y = self.act(self.conv(x))
        y = x + self.act(self.conv(y))
        z = self.other(y)
        return {"y": y, "rest": (z, x.argmax())} if self.mode == "several" else z


@pytest.mark.parametrize("mode", ["twice", "several"])
@pytest.mark.parametrize("frozen", [False, True])
def test_layers_that_run_twice_residuals_and_activations_in_place(mode, frozen):
    model = convert(Twice(), 2).eval()
    model.mode = mode
    model.requires_grad_(not frozen)
    gains = output_gains(model, smooth(2, 4, 12, 12))
    assert {name: gain.calls for name, gain in gains.items()} == {"conv": 2, "other": 1}
    assert all(bool((gain.gain > 0).all()) for gain in gains.values())
    dense = copy.deepcopy(model)
    prune_network(model, [smooth(4, 4, 16, 16) for _ in range(4)], 0.5, 20)
    model.mode = dense.mode = "twice"
    x = smooth(4, 4, 16, 16)
    plain = by_magnitude(dense, 0.5)
    with torch.no_grad():
        want = dense(x)
        errors = [float((net(x) - want).square().mean()) for net in (model, plain)]
    # Four channels leave little to compensate with: 0.54 to 0.77 over seeds.
    assert errors[0] < 0.9 * errors[1]


def test_networks_that_cannot_be_pruned():
    model = convert(Twice(), 2)
    model.mode = "skips"
    with pytest.raises(PruneError, match=r"do not reach layers \['other'\]"):
        output_gains(model, torch.randn(1, 4, 8, 8))

    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = WinogradConv2d(2, 2, 3, 2)

        def forward(self, x):
            return self.conv(x).argmax(1)

    with pytest.raises(PruneError, match="does not depend on any Winograd layer"):
        output_gains(Blind(), torch.randn(1, 2, 8, 8))


@pytest.mark.parametrize("structure", ["balanced", "rows2", "rows4", "kernel"])
@pytest.mark.parametrize("groups", [1, 2])
def test_structures(structure, groups):
    dense = convert(small_net(groups), 2).eval()
    batches = [smooth(4, 3, 24, 24) for _ in range(4)]
    model = prune_network(copy.deepcopy(dense), batches, 0.5, 30, structure=structure)
    plain = by_magnitude(dense, 0.5, structure)
    assert detect_structure(model[2].winograd_weight.detach().numpy(), groups) == structure
    x = smooth(4, 3, 24, 24)
    with torch.no_grad():
        want = dense(x)
        errors = [float((net(x) - want).square().mean()) for net in (model, plain)]
    assert errors[0] < 0.5 * errors[1]


def test_bad_requests():
    model = convert(small_net(), 2)
    x = [torch.randn(1, 3, 8, 8)]
    with pytest.raises(PruneError, match="no Winograd layer"):
        prune_network(small_net(), x, 0.5)
    with pytest.raises(PruneError, match="no calibration batches"):
        prune_network(model, [], 0.5)
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(PruneError, match=r"in \[0, 1\)"):
            prune_network(model, x, share)
    with pytest.raises(PruneError, match="structure must be one of"):
        prune_network(model, x, 0.5, structure="rows3")
    with pytest.raises(PruneError, match="budget must be one of"):
        prune_network(model, x, 0.5, budget="net")
    with pytest.raises(PruneError, match="takes one sparsity, not one per layer"):
        prune_network(model, x, dict.fromkeys(("0", "2", "4"), 0.5), budget="global")
    with pytest.raises(PruneError, match="must be given for layers"):
        prune_network(model, x, {"0": 0.5})
    with pytest.raises(PruneError, match="layer '0': its input is zero"):
        prune_network(model, [torch.zeros(1, 3, 8, 8)], 0.5)


def test_layers_whose_problem_does_not_fit_into_memory(monkeypatch):
    model = convert(small_net(), 2)
    x = [torch.randn(1, 3, 8, 8)]
    sizes = {3: 48, 8: 128}  # 16 coefficients for each input channel
    layers = [layer for layer in model.modules() if isinstance(layer, WinogradConv2d)]
    assert [needed_bytes(layer) for layer in layers] == [
        3 * 4 * sizes[layer.weight.shape[2]] ** 2 for layer in layers
    ]
    monkeypatch.setattr(second_order, "available_bytes", lambda: 3 * 4 * 128**2 - 1)
    want = r"layer '2': pruning 8 input channels per group under F\(2,3\) takes .* smaller tile"
    with pytest.raises(PruneError, match=want):
        prune_network(copy.deepcopy(model), x, 0.5)
    for enough in (3 * 4 * 128**2, None):
        monkeypatch.setattr(second_order, "available_bytes", lambda enough=enough: enough)
        prune_network(copy.deepcopy(model), x, 0.5, 2)


@pytest.mark.skipif(not host.can_reset_peak(), reason="the system tells no peak")
def test_choosing_makes_one_matrix():
    n = 3000  # 36 MB: allocators give so much back at once
    hessian = torch.full((n, n), 0.1)
    hessian.diagonal().fill_(1.0)
    problem = Normalised(hessian, torch.randn(n, 2), torch.ones(n), torch.randn(n, 2))
    small = Normalised(hessian[:9, :9], *(torch.ones(9, 2) for _ in range(3)))
    small.choose(0.5, 2)  # what is needed once
    before = host.resident_bytes(host.HELD)
    host.reset_peak()
    problem.choose(0.5, 2)
    assert host.resident_bytes(host.PEAK) - before < 1.5 * hessian.nbytes


def test_a_layer_that_runs_more_often_in_the_dense_network():
    class Repeats(nn.Module):
        def __init__(self, times):
            super().__init__()
            self.conv = WinogradConv2d(2, 2, 3, 2, padding=1)
            self.times = times

        def forward(self, x):
            for _ in range(self.times):
                x = self.conv(x)
            return x

    watched = second_order._Watched(Repeats(1), Repeats(2), "conv", 2)
    with pytest.raises(
        PruneError,
        match="1 times in the pruned network and 2 times, that is more often, in the dense",
    ):
        list(watched.pairs(torch.randn(1, 2, 8, 8)))


def test_a_batch_that_stops_short_names_the_layer():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = WinogradConv2d(2, 2, 3, 2, padding=1)

        def forward(self, x):
            return self.conv(x) if x.shape[2] > 4 else x

    with pytest.raises(PruneError, match="layer 'conv': a calibration batch does not reach it"):
        prune_network(Sometimes(), [torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4)], 0.5)
