"""One-shot pruning of an experiment: zeros go where they harm least, or equally to all layers."""

import pytest
import torch

from tvm_sparsewino.nn import WinogradConv2d
from tvm_sparsewino.nn.data import ArraySource
from tvm_sparsewino.nn.experiments.methods import starting_point
from tvm_sparsewino.nn.experiments.networks import make_network
from tvm_sparsewino.nn.experiments.settings import Pruning


@pytest.mark.parametrize(
    ("options", "equal"), [({}, False), ({"budget": "global"}, False), ({"budget": "layer"}, True)]
)
def test_the_first_layer_keeps_more_unless_all_shall_be_equal(options, equal):
    torch.manual_seed(0)
    data = ArraySource(torch.zeros(8, 1, 16, 16, dtype=torch.uint8), torch.arange(8), 10)
    model = make_network("small-vgg", {"widths": [4, 8]}, data).eval()
    images = [torch.randn(16, 1, 16, 16) for _ in range(2)]
    pruning = Pruning("one-shot", 4, 0.8, options={**options, "iterations": 4})
    start = starting_point(model, pruning, images[0], images)
    layers = [x.weight for x in start.modules() if isinstance(x, WinogradConv2d)]
    shares = [float((x == 0).float().mean()) for x in layers]
    sizes = [x.numel() for x in layers]
    zeros = sum(share * size for share, size in zip(shares, sizes, strict=True))
    # Each layer's share is rounded to whole coefficients.
    assert zeros / sum(sizes) == pytest.approx(0.8, abs=0.005)
    assert (max(shares) - min(shares) < 0.01) == equal
    if not equal:
        assert shares[0] == min(shares) < 0.7
