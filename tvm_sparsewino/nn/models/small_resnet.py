"""A ResNet-style network for images of 28x28 or 32x32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SmallResNet(nn.Module):
    """The residual network that K. He, X. Zhang, S. Ren and J. Sun use for CIFAR-10.

    "Deep Residual Learning for Image Recognition" (arXiv:1512.03385, section 4.2): stages of basic
    blocks, each stage after the first at half the resolution. Where a block changes the number of
    channels, its shortcut is a 1x1 convolution.

    Args:
        classes: outputs.
        channels: of the image.
        widths: channels of the stages.
        blocks: per stage.
        pool: halve the map by maximum pooling after the first convolution, as the networks for
            larger images do: a quarter of the work.
        stride: of the first convolution; the networks for larger images have 2.
    """

    def __init__(
        self,
        classes: int = 10,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int = 1,
        pool: bool = False,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        stages: list[nn.Module] = []
        before = widths[0]
        for i, width in enumerate(widths):
            for j in range(blocks):
                stages.append(_Block(before, width, 2 if i and not j else 1))
                before = width
        self.blocks = nn.Sequential(*stages)
        self.classes = nn.Linear(before, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, classes], before softmax."""
        x = self.pool(torch.relu(self.norm(self.stem(image))))
        return self.classes(self.blocks(x).mean((2, 3)))


class _Block(nn.Module):
    """Two 3x3 convolutions, the first with the stride, and what comes in added."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != width:
            project = nn.Conv2d(before, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
