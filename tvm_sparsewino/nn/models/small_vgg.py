"""A VGG-style network for images of 28x28 or 32x32."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class SmallVGG(nn.Module):
    """Stages of 3x3 convolutions with batch normalisation, halved by maximum pooling.

    After K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition" (arXiv:1409.1556), with the mean over the last map in place of its hidden layers.

    Args:
        classes: outputs.
        channels: of the image.
        widths: channels of the stages.
        depth: convolutions per stage.
        stride: of the first convolution.
    """

    def __init__(
        self,
        classes: int = 10,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64),
        depth: int = 2,
        stride: int = 1,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for i, width in enumerate(widths):
            if i:
                layers.append(nn.MaxPool2d(2))
            for j in range(depth):
                step = 1 if i or j else stride
                layers.append(nn.Conv2d(before, width, 3, step, padding=1, bias=False))
                layers += [nn.BatchNorm2d(width), nn.ReLU()]
                before = width
        self.features = nn.Sequential(*layers)
        self.classes = nn.Linear(before, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, classes], before softmax."""
        return self.classes(self.features(image).mean((2, 3)))
