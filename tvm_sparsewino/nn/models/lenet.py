"""LeNet-5: two layers of 5x5 filters, or of larger ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import ConfigError


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and maximum pooling, in the widths that pruning papers use.

    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
    Recognition" (1998); 20 and 50 channels and 500 hidden units as in S. Han, J. Pool, J. Tran,
    W. Dally, "Learning both Weights and Connections" (2015). The first convolution keeps the size
    of the map, the second one does not.

    Args:
        classes: outputs.
        channels: of the image.
        size: height and width of the image; at least 12 with 5x5 filters.
        widths: channels of the two convolutions.
        hidden: units of the layer between the convolutions and the outputs.
        kernel: height and width of the filters, odd.

    Raises:
        ConfigError: an even kernel, or an image too small for the second convolution.
    """

    def __init__(
        self,
        classes: int = 10,
        channels: int = 1,
        size: int = 28,
        widths: tuple[int, int] = (20, 50),
        hidden: int = 500,
        kernel: int = 5,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd, got {kernel!r}")
        side = (size // 2 - kernel + 1) // 2
        if side < 1:
            least = 2 * (kernel + 1)
            raise ConfigError(f"needs images of at least {least}x{least}, got {size}x{size}")
        first, second = widths
        self.conv1 = nn.Conv2d(channels, first, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(first, second, kernel)
        self.hidden = nn.Linear(second * side * side, hidden)
        self.classes = nn.Linear(hidden, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[N, channels, size, size] -> [N, classes], before softmax."""
        x = nn.functional.max_pool2d(torch.relu(self.conv1(image)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.classes(torch.relu(self.hidden(x.flatten(1))))
