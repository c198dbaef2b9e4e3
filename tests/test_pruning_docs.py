"""The Python at the top of docs/pruning.md runs, and leaves a file of a pruned, better network."""

import re
from pathlib import Path

import torch
from torch import nn

from tvm_sparsewino.nn import WinogradConv2d
from tvm_sparsewino.nn.weights_io import load_into

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "pruning.md").read_text()


def network():
    """Classes by the mean of two maps."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def test_the_recipe_in_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = network()
    criterion = nn.CrossEntropyLoss()
    images, labels = torch.rand(64, 1, 12, 12), torch.arange(64) % 2
    images[labels == 1] *= 0.5
    scope = {
        "model": model,
        "batches": list(images.split(16)),
        "data": list(zip(images.split(16), labels.split(16), strict=True)) * 10,
        "criterion": criterion,
    }
    exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], scope)
    pruned = scope["pruned"]
    layer = next(m for m in pruned.modules() if isinstance(m, WinogradConv2d))
    # 0.9 of 288 coefficients, to a whole number.
    assert int((layer.winograd_weight == 0).sum()) in (259, 260)
    with torch.no_grad():
        before, after = (float(criterion(m.eval()(images), labels)) for m in (model, pruned))
        assert after < before  # trained, not only pruned
        again = load_into(network(), "pruned.safetensors")
        assert torch.equal(again(images), pruned(images))
