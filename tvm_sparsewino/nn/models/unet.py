"""U-Net for images of the same size as its input.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation" (MICCAI 2015, arXiv:1505.04597), with padded convolutions, BatchNorm after each, and
transposed convolutions on the way up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Levels of two 3x3 convolutions, halved on the way down, joined with their like on the way up.

    Args:
        channels, classes: of the input and of the output.
        width: channels of the first level; each level doubles them.
        levels: times that height and width are halved.
    """

    def __init__(
        self, channels: int = 3, classes: int = 2, width: int = 64, levels: int = 4
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(levels + 1)]
        before = [channels, *widths[:-1]]
        self.down = nn.ModuleList(map(_level, before, widths))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.join = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, 2) for low, high in pairs)
        self.up = nn.ModuleList(_level(2 * high, high) for _, high in pairs)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, classes, H, W]; H and W are multiples of 2^levels."""
        kept = []
        for number, level in enumerate(self.down):
            x = level(nn.functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        kept.pop()
        for join, level in zip(self.join, self.up, strict=True):
            x = level(torch.cat([kept.pop(), join(x)], 1))
        return self.head(x)


def _level(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )
