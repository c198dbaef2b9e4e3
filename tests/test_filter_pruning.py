"""Filters that go with all that reads them: the shrunk network is the masked one."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tvm_sparsewino as sw
from tvm_sparsewino.errors import PruneError
from tvm_sparsewino.nn import NativePruner, PruneConfig, WinogradConv2d, convert
from tvm_sparsewino.nn.channels import CONVOLUTIONS, NORMS, channel_map
from tvm_sparsewino.nn.filter_pruning import plan_filters, prune_filters, without_filters
from tvm_sparsewino.nn.models.mobilenet import MobileNetV2
from tvm_sparsewino.nn.models.unet import UNet


class Block(nn.Module):
    """A residual block whose shortcut has a convolution of its own where sizes change."""

    def __init__(self, before, channels, stride):
        super().__init__()
        self.a = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.norm_a = nn.BatchNorm2d(channels)
        self.b = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm_b = nn.BatchNorm2d(channels)
        self.short = nn.Conv2d(before, channels, 1, stride) if before != channels else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.norm_b(self.b(self.relu(self.norm_a(self.a(x)))))
        return self.relu(y + (x if self.short is None else self.short(x)))


def residual():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        Block(8, 8, 1),
        Block(8, 12, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


def sequential():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 10, 3, padding=1, padding_mode="replicate"),
        nn.BatchNorm2d(10, affine=False),
        nn.LeakyReLU(0.1),
        nn.Conv2d(10, 10, 3, padding=1, groups=10),
        nn.Flatten(),
        nn.Linear(10 * 5 * 6, 16),
        nn.BatchNorm1d(16),
        nn.Linear(16, 4),
    )


class Functional(nn.Module):
    """Functions and methods: concatenation, sums, products, views, means; a layer called twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.wide = nn.Conv2d(16, 6, 1)
        self.gate = nn.Conv2d(6, 6, 1)
        self.sigmoid = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 4)
        self.flat = nn.Linear(6 * 10 * 12, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.twice(self.twice(x).relu())
        z = self.wide(torch.cat([x, y * 2], dim=1))
        z = z * torch.tanh(self.gate(z)) + torch.sigmoid(self.sigmoid(z))
        flat = self.flat(z.view(x.size(0), -1))
        return self.head(z.mean((2, 3))) + flat


def settle(model, x):
    """Statistics and affine parameters of batch normalisation that are not those of a start."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    model.train()
    with torch.no_grad():
        model(x)
    return model.eval()


NETWORKS = {
    "residual": (residual, (2, 3, 10, 12)),
    "sequential": (sequential, (2, 3, 10, 12)),
    "functional": (Functional, (2, 3, 10, 12)),
    "depthwise": (lambda: MobileNetV2(classes=4), (1, 3, 32, 32)),
    "joined": (lambda: UNet(width=4, levels=2), (1, 3, 16, 16)),
}


@torch.no_grad()
def masked_filters(model, plan):
    """A copy of the same size in which the feature maps that go are zero."""
    model = copy.deepcopy(model)
    for name, outputs in plan.outputs.items():
        module, gone = model.get_submodule(name), torch.from_numpy(~outputs)
        if isinstance(module, WinogradConv2d):
            module.weight[:, gone] = 0
        elif isinstance(module, CONVOLUTIONS) or (type(module) in NORMS and module.affine):
            module.weight[gone] = 0
        elif type(module) in NORMS:
            module.running_mean[gone] = 0
        if isinstance(module, (*CONVOLUTIONS, *NORMS)) and module.bias is not None:
            module.bias[gone] = 0
    return model


@pytest.mark.parametrize("tile", [0, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_shrunk_is_masked(name, tile):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    x = torch.randn(shape)
    model = settle(make(), torch.randn(8, *shape[1:]))
    model = convert(model, tile).eval() if tile else model
    before = copy.deepcopy(model.state_dict())
    plan = plan_filters(model, 0.4, (x,))
    shrunk, masked = without_filters(model, plan), masked_filters(model, plan)
    with torch.no_grad():
        want, have, dense = masked(x), shrunk(x), model(x)
    # The same sums without their zeros: float32 rounding of another order.
    assert torch.allclose(have, want, rtol=0, atol=1e-4 * float(want.abs().max()))
    assert not torch.allclose(dense, want, rtol=0, atol=1e-3 * float(want.abs().max()))
    count = [sum(p.numel() for p in net.parameters()) for net in (shrunk, model)]
    # A share of 0.4 of the filters leaves 0.36 of the weights between two such layers; most of
    # "functional" is fixed.
    assert count[0] < (0.9 if name == "functional" else 0.75) * count[1]
    assert sum(plan.removed.values()) > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    shrunk.train()
    shrunk(torch.randn(8, *shape[1:])).square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in shrunk.parameters())


def test_the_smallest_filters_go_and_tied_ones_together():
    model = residual()
    with torch.no_grad():
        model[3].a.weight[[1, 4]] *= 1e-3
        for conv in (model[4].b, model[4].short):
            conv.weight[[0, 7, 11]] *= 1e-3
    plan = plan_filters(model, 0.25, (torch.randn(1, 3, 8, 8),))
    assert (~plan.outputs["3.a"]).nonzero()[0].tolist() == [1, 4]
    assert (~plan.outputs["4.b"]).nonzero()[0].tolist() == [0, 7, 11]
    assert (plan.outputs["4.b"] == plan.outputs["4.short"]).all()
    # The identity shortcut ties the stem to the second convolution of the first block.
    assert (plan.outputs["0"] == plan.outputs["3.b"]).all()
    assert (plan.inputs["7"] == plan.outputs["4.b"]).all()
    assert plan.removed == {"0": 2, "3.a": 2, "3.b": 2, "4.a": 3, "4.b": 3, "4.short": 3}


def test_shares_by_name_and_what_is_fixed():
    model, x = sequential(), torch.randn(1, 3, 10, 12)
    shrunk = prune_filters(model, {"3": 0.5}, (x,))
    assert shrunk[0].out_channels == 6
    assert (shrunk[3].out_channels, shrunk[6].groups, shrunk[8].in_features) == (5, 5, 150)
    # Never the last filter; outputs of the network, and a sigmoid's inputs, never.
    assert prune_filters(model, 0.99, (x,))[0].out_channels == 1
    plan = plan_filters(Functional(), 0.5, (x,))
    assert plan.removed == {"stem": 4, "twice": 4, "wide": 0, "gate": 0, "sigmoid": 0}
    found = channel_map(Functional(), (x,))
    assert all(found.is_fixed(root) for root in found.roots(found.inputs["stem"]))
    last = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    assert plan_filters(last, 0.5, (x,)).removed == {"0": 2, "1": 0}


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.b(self.a(x).view(-1, 4, 10, 12)),
        lambda self, x: self.b(self.a(x).softmax(1)),
        lambda self, x: self.b(self.a(x) + 1),
        lambda self, x: self.b(self.a(x)) * self.a(x).shape[1],
        lambda self, x: self.b(self.a(x).flip(1)),
        lambda self, x: self.b(self.a(x) * self.a(x).mean()),
        lambda self, x: self.c(self.a(x)),
    ],
    ids=["view", "softmax", "plus", "shape", "flip", "broadcast", "groups"],
)
def test_what_is_not_understood_stays_whole(forward):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
            self.c = nn.Conv2d(4, 4, 1, groups=2)

    Net.forward = forward
    model, x = Net(), torch.randn(1, 3, 10, 12)
    plan = plan_filters(model, 0.5, (x,))
    assert set(plan.removed.values()) == {0}
    assert torch.equal(without_filters(model, plan)(x), model(x))


def test_native_pruning_after_and_before():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 10, 12)
    model = prune_filters(settle(residual()[:4], torch.randn(8, 3, 10, 12)), 0.3, (x,))
    model = convert(model, 2).eval()
    NativePruner(model, PruneConfig(0.6, "white", end_step=1)).step()
    again = prune_filters(model, 0.3, (x,))
    layer = again.get_submodule("3.a")
    assert isinstance(layer, WinogradConv2d) and layer.mask.shape == layer.weight.shape
    assert float(layer.mask.float().mean()) == pytest.approx(0.4, abs=0.1)
    with torch.no_grad():
        want = again(x).numpy()
    have = sw.compile(sw.import_torch(again, (x,)), target="native")(x.numpy())
    assert abs(have - want).max() < 1e-5 * abs(want).max()


def test_bad_requests():
    model, x = sequential(), torch.randn(1, 3, 10, 12)
    with pytest.raises(PruneError, match=r"shares must be in \[0, 1\), got {'0': 1.0"):
        plan_filters(model, 1.0, (x,))
    with pytest.raises(PruneError, match=r"\['1'\] are no convolutions of the network"):
        plan_filters(model, {"1": 0.5}, (x,))
    with pytest.raises(PruneError, match="Sequential cannot be traced"):
        plan_filters(model, 0.5, (torch.randn(1, 2, 10, 12),))
