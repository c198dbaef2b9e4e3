"""VGG-16.

K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(ICLR 2015, arXiv:1409.1556), table 1, configuration D; with BatchNorm, if asked for, as in the
weights that are published for PyTorch, whose parameter names these are (``features.0.weight``,
``classifier.0.weight`` ...).
"""

from __future__ import annotations

from torch import Tensor, nn

_STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # width over the first one's, convolutions
_POOLED = 7  # height and width of what the linear layers read


class VGG(nn.Module):
    """Stages of 3x3 convolutions with max pooling between, then three linear layers.

    Args:
        classes: outputs; 0 for a network without linear layers.
        width: channels of the first stage.
        batch_norm: BatchNorm after every convolution.
        hidden: outputs of the first two linear layers.
    """

    def __init__(
        self, classes: int = 1000, width: int = 64, batch_norm: bool = False, hidden: int = 4096
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for factor, convolutions in _STAGES:
            for _ in range(convolutions):
                layers.append(nn.Conv2d(channels, factor * width, 3, padding=1))
                channels = factor * width
                layers += [nn.BatchNorm2d(channels)] if batch_norm else []
                layers.append(nn.ReLU())
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(_POOLED if classes else 1)
        self.classifier = _linear_layers(channels, hidden, classes) if classes else None

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> scores [N, classes], or [N, 8 width] without linear layers."""
        x = self.avgpool(self.features(x)).flatten(1)
        return x if self.classifier is None else self.classifier(x)


def _linear_layers(channels: int, hidden: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels * _POOLED**2, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, classes),
    )


def vgg16(
    classes: int = 1000, width: int = 64, batch_norm: bool = False, hidden: int = 4096
) -> VGG:
    """VGG-16; ``classes=0`` leaves the linear layers out."""
    return VGG(classes, width, batch_norm, hidden)
