"""Normalise every way to specify padding to four sizes."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ConfigError

# Zeros, or whatever the padding mode puts there, at (top, left, bottom, right).
Padding = tuple[int, int, int, int]

MODES = ("zeros", "reflect", "replicate", "circular")


def four_sides(padding: int | tuple[int, ...]) -> Padding:
    """One size, (height, width) or (top, left, bottom, right) -> (top, left, bottom, right).

    Raises:
        ConfigError: something else, or a negative size.
    """
    sizes = (padding,) if isinstance(padding, int) else tuple(padding)
    if len(sizes) not in (1, 2, 4) or not all(isinstance(p, int) and p >= 0 for p in sizes):
        raise ConfigError(f"padding must be 1, 2 or 4 sizes of at least 0, got {padding!r}")
    return sizes * (4 // len(sizes))


def conv_padding(conv: nn.Conv2d) -> Padding:
    """The padding of a stride-1 ``nn.Conv2d``, "same" and "valid" included, as four sides."""
    if conv.padding == "valid":
        return four_sides(0)
    if conv.padding == "same":
        # An even kernel needs one more at the end, where PyTorch puts it too.
        before, after = (conv.kernel_size[0] - 1) // 2, conv.kernel_size[0] // 2
        return before, before, after, after
    return four_sides(conv.padding)


def explicit_padding(x: Tensor, padding: Padding, mode: str) -> tuple[Tensor, Padding]:
    """Pad with anything but zeros beforehand; returns the map and the zeros still to add."""
    if mode == "zeros" or not any(padding):
        return x, padding
    top, left, bottom, right = padding
    return nn.functional.pad(x, (left, right, top, bottom), mode=mode), (0, 0, 0, 0)
