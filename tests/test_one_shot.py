"""One-shot pruning of a trained classifier, without labels."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tvm_sparsewino.nn import convert, prune_one_shot
from tvm_sparsewino.nn.calibration import winograd_layers

WIDTH = 16


class Residual(nn.Module):
    """Two convolutions with batch normalisation and a shortcut, activations in place."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.norms[0](self.first(x)))
        return self.relu(x + self.norms[1](self.second(y)))


@pytest.fixture(scope="module")
def trained():
    """A small residual network, trained on 1200 digits, with the inputs and the other 597."""
    generator = torch.Generator().manual_seed(0)
    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 16
    y = torch.from_numpy(digits.target)
    order = torch.randperm(len(x), generator=generator)
    seen, unseen = order[:1200], order[1200:]
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        Residual(WIDTH),
        nn.MaxPool2d(2),
        nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * WIDTH, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(16):
        for rows in seen[torch.randperm(1200, generator=generator)].split(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval(), x[seen], x[unseen], y[unseen]


def accuracy(model, x, y):
    """Percent."""
    with torch.no_grad():
        return 100 * float((model(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("tile", [2, 4])
def test_a_classifier_keeps_its_accuracy_at_70_percent_zeros(trained, tile):
    model, seen, x, y = trained
    converted = convert(model, tile)
    told = []
    pruned = prune_one_shot(converted, seen.split(300), 0.7, progress=told.append)
    layers = winograd_layers(pruned)
    zeros = sum(int((layer.winograd_weight == 0).sum()) for layer in layers.values())
    count = sum(layer.weight.numel() for layer in layers.values())
    assert zeros / count == pytest.approx(0.7, abs=0.001)
    assert [p.layer for p in told] == list(layers)
    assert [(p.done, p.total) for p in told] == [(i, 5) for i in range(1, 6)]
    assert all(0 <= p.lost < 1 and p.seconds >= 0 for p in told)
    dense = accuracy(model, x, y)
    assert dense > 95
    assert accuracy(pruned, x, y) > dense - 1.0
    # Magnitude alone, nothing compensated, does not.
    for layer in winograd_layers(converted).values():
        scores = layer.weight.detach().abs()
        layer.set_mask(scores > scores.flatten().kthvalue(round(0.7 * scores.numel())).values)
    assert accuracy(converted, x, y) < dense - 5.0


def test_the_given_model_and_the_flags_stay(trained):
    model, seen, *_ = trained
    converted = convert(model, 2)
    converted.train()
    before = {name: value.clone() for name, value in converted.state_dict().items()}
    pruned = prune_one_shot(converted, [seen[:64]], 0.5, iterations=5)
    assert pruned.training and pruned is not converted
    after = converted.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    norm = pruned[3].norms[0]
    assert torch.equal(norm.running_mean, model[3].norms[0].running_mean)
