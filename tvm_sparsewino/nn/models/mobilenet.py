"""MobileNetV2: inverted residuals with depthwise convolutions.

M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks" (CVPR 2018, arXiv:1801.04381), table 2, with the parameter names of the weights that
are published for PyTorch (``features.1.conv.0.0.weight`` ...).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

# Expansion, output channels, blocks, stride of the first one.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_FIRST, _LAST = 32, 1280
_MULTIPLE = 8  # of which all numbers of channels are


class InvertedResidual(nn.Module):
    """1x1 to more channels, 3x3 depthwise, 1x1 to fewer; the input added where shapes agree."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_bn_relu6(channels, inner, 1))
        layers += [
            _conv_bn_relu6(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, out, 1, bias=False),
            nn.BatchNorm2d(out),
        ]
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, out, H / stride, W / stride]."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """A 3x3 stem, inverted residuals, a 1x1 convolution, global average pooling, one linear layer.

    Args:
        classes: outputs.
        multiplier: of all numbers of channels, which are rounded to multiples of 8.
        stages: expansion, output channels, blocks and stride of the first block, of each stage.
    """

    def __init__(
        self,
        classes: int = 1000,
        multiplier: float = 1.0,
        stages: Sequence[tuple[int, int, int, int]] = STAGES,
    ) -> None:
        super().__init__()
        channels = _rounded(_FIRST * multiplier)
        layers: list[nn.Module] = [_conv_bn_relu6(3, channels, 3, 2)]
        for expansion, base, blocks, stride in stages:
            out = _rounded(base * multiplier)
            for number in range(blocks):
                first = stride if not number else 1
                layers.append(InvertedResidual(channels, out, first, expansion))
                channels = out
        last = _rounded(_LAST * max(1.0, multiplier))
        layers.append(_conv_bn_relu6(channels, last, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> scores [N, classes]."""
        x = self.features(x)
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def _conv_bn_relu6(
    channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, not below 8 and not less than 90 % of ``channels``."""
    nearest = max(_MULTIPLE, int(channels + _MULTIPLE / 2) // _MULTIPLE * _MULTIPLE)
    return nearest if nearest >= 0.9 * channels else nearest + _MULTIPLE


def mobilenet_v2(classes: int = 1000, multiplier: float = 1.0) -> MobileNetV2:
    """MobileNetV2."""
    return MobileNetV2(classes, multiplier)
