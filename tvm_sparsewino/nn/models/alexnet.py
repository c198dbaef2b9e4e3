"""AlexNet, the variant on one device.

A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv:1404.5997),
with the parameter names of the weights that are published for PyTorch (``features.0.weight`` ...).
"""

from __future__ import annotations

from torch import Tensor, nn

_POOLED = 6  # height and width of what the linear layers read


class AlexNet(nn.Module):
    """Five convolutions of 11x11, 5x5 and 3x3, then three linear layers.

    Args:
        classes: outputs.
        width: channels of the first convolution, the others keep their proportions; even.
        hidden: outputs of the first two linear layers.
    """

    def __init__(self, classes: int = 1000, width: int = 64, hidden: int = 4096) -> None:
        super().__init__()
        channels = (3, width, 3 * width, 6 * width, 4 * width, 4 * width)
        self.features = nn.Sequential(
            nn.Conv2d(channels[0], channels[1], 11, 4, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(channels[1], channels[2], 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(channels[2], channels[3], 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels[3], channels[4], 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels[4], channels[5], 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(_POOLED)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(channels[5] * _POOLED**2, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W], 63x63 at least -> scores [N, classes]."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def alexnet(classes: int = 1000, width: int = 64, hidden: int = 4096) -> AlexNet:
    """AlexNet."""
    return AlexNet(classes, width, hidden)
