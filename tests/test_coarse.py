"""The best of N random coarse masks."""

import copy

import pytest
import torch
from torch import nn

from tvm_sparsewino.errors import PruneError
from tvm_sparsewino.nn import NativePruner, PruneConfig, convert
from tvm_sparsewino.nn.calibration import winograd_layers
from tvm_sparsewino.nn.coarse import prune_best_of
from tvm_sparsewino.structure import detect_structure


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2)
    )
    return convert(net, 2).eval()


def harm_of(dense):
    """Mean squared error against the dense network on fixed inputs."""
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = dense(x)

    def harm(model):
        with torch.no_grad():
            return float((model(x) - want).square().mean())

    return harm


@pytest.mark.parametrize("structure", ["outputs", "inputs", "kernel"])
def test_the_best_of_many_is_better_than_the_mean_and_than_one(structure):
    dense = network()
    harm = harm_of(dense)
    model, one = copy.deepcopy(dense), copy.deepcopy(dense)
    choices = prune_best_of(model, 0.5, structure, harm, candidates=20)
    first = prune_best_of(one, 0.5, structure, harm, candidates=1)[0]
    assert [c.layer for c in choices] == ["0", "2"]
    assert all(c.harm < c.mean_harm for c in choices)
    # The first candidate is the same.
    assert choices[0].harm <= first.harm and choices[-1].harm == harm(model)
    for layer in winograd_layers(model).values():
        zeros = float((~layer.mask).float().mean())
        unit = {"outputs": 1 / 8, "inputs": 1 / 3}.get(structure, 1 / 24)
        assert zeros == pytest.approx(0.5, abs=unit / 2 + 1e-6)
        # What goes for all coordinates at once is what a kernel of the compiler is faster on.
        assert detect_structure(layer.winograd_weight.detach().numpy(), layer.groups) != "balanced"
        assert bool((layer.mask == layer.mask[:1]).all())


def test_kernels_after_feature_maps_keep_what_is_gone():
    model = network()
    harm = harm_of(model)
    prune_best_of(model, 0.25, "outputs", harm, candidates=4)
    gone = {name: ~layer.mask for name, layer in winograd_layers(model).items()}
    prune_best_of(model, 0.5, "kernel", harm, candidates=4)
    for name, layer in winograd_layers(model).items():
        assert not bool((layer.mask & gone[name]).any())
        assert float((~layer.mask).float().mean()) == pytest.approx(0.5, abs=1 / 48 + 1e-6)


def test_same_seed_same_masks():
    dense = network()
    harm = harm_of(dense)
    masks = []
    for seed in (3, 3, 4):
        model = copy.deepcopy(dense)
        prune_best_of(model, 0.5, "kernel", harm, candidates=3, seed=seed)
        masks.append(torch.cat([x.mask.flatten() for x in winograd_layers(model).values()]))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("structure", ["outputs", "inputs"])
def test_feature_maps_by_their_size(structure):
    model = network()
    with torch.no_grad():
        dim = 1 if structure == "outputs" else 2
        model[2].weight.index_fill_(dim, torch.tensor([1, 3]), 1e-6)
    config = PruneConfig(0.25, "white", end_step=1, structure=structure)
    NativePruner(model, config).step()
    mask = model[2].mask
    if structure == "outputs":
        assert torch.equal(~mask[0, :, 0], torch.tensor([False, True, False, True] + 4 * [False]))
    else:
        # A quarter of two groups of four input channels: two of the four that are small.
        assert bool(mask[..., [0, 2]].all()) and int((~mask[0, [0, 4]]).sum()) == 2


def test_bad_requests():
    model = network()
    for arguments, message in (
        ((0.5, "rows3", float), "structure must be one of"),
        ((1.0, "kernel", float), r"sparsity must be in \[0, 1\), got 1.0"),
        ((0.5, "kernel", float, 0), "candidates must be >= 1, got 0"),
        ((0.5, "kernel", lambda _: float("nan"), 2), "layer '0': the harm is no number"),
    ):
        with pytest.raises(PruneError, match=message):
            prune_best_of(model, *arguments)
    with pytest.raises(PruneError, match="no Winograd layer"):
        prune_best_of(nn.Sequential(), 0.5, "kernel", float)
