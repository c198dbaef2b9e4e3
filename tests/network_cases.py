"""Narrow versions of the package's networks that compile in seconds, shared by tests."""

import torch

from tvm_sparsewino.nn import models
from tvm_sparsewino.nn.models.resnet import BasicBlock, Bottleneck, ResNet

_FEW = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2))  # stages of MobileNetV2
# Name -> network, shape of its image.
NARROW = {
    "resnet18": (lambda: ResNet(BasicBlock, (1, 2), 10, 8), (1, 3, 32, 32)),
    "resnet50": (lambda: ResNet(Bottleneck, (1, 2), 10, 8), (1, 3, 32, 32)),
    "vgg16": (lambda: models.vgg16(10, 2, hidden=24), (1, 3, 224, 224)),
    "vgg16_bn": (lambda: models.vgg16(0, 4, batch_norm=True), (1, 3, 32, 32)),
    "alexnet": (lambda: models.alexnet(10, 8, hidden=24), (2, 3, 224, 224)),
    "mobilenet_v2": (lambda: models.MobileNetV2(10, 0.25, _FEW), (1, 3, 32, 32)),
    "unet": (lambda: models.UNet(width=8, levels=1), (1, 3, 12, 20)),
    "srvgg": (lambda: models.SRVGGNetCompact(width=8, depth=1, reduced=2), (1, 3, 13, 9)),
}
TOLERANCE = 1e-4  # of the output's maximum: float32, sums in another order, Winograd's rounding


def narrow(name, density=1.0, winograd=True):
    """A network with seeded weights, pruned, evaluating; and its input."""
    make, shape = NARROW[name]
    random = torch.Generator().manual_seed(7)
    some = torch.randn((8, *shape[1:]), generator=random)
    model = models.settle_statistics(models.seed_weights(make()), some)
    x = torch.randn(shape, generator=random)
    model = models.prune_at_once(model, density, x, winograd)
    # Maps of few values make poor statistics.
    return models.settle_statistics(model, some), x
