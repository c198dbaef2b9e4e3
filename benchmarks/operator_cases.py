"""The networks whose operators are compared with their floors: inputs, modules, right answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import light_models
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn

from tvm_sparsewino import driver
from tvm_sparsewino.nn import models
from tvm_sparsewino.nn.interchange import write_onnx
from tvm_sparsewino.nn.sparse_solution import keep_largest

SIDE = 224
_CALIBRATION = 4  # images over which BatchNorm's statistics are taken
_SIGMA = 25 / 255


class _Denoiser(nn.Module):
    """FFDNet at one level of noise: a network of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.network = models.load_ffdnet()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image, _SIGMA)


@dataclass(frozen=True)
class Made:
    """A network to measure.

    Attributes:
        module: as imported.
        x: its input.
        answers: of another engine, by its name; one array per output.
    """

    module: Any
    x: np.ndarray
    answers: dict[str, list[np.ndarray]]


# Name -> network and shape of its image. Published weights where they are small enough to be had
# as packages, random ones elsewhere.
ZOO: dict[str, tuple[Callable[[], nn.Module], bool, tuple[int, ...]]] = {
    "resnet18": (models.resnet18, False, (1, 3, SIDE, SIDE)),
    "resnet34": (models.resnet34, False, (1, 3, SIDE, SIDE)),
    "resnet50": (models.resnet50, False, (1, 3, SIDE, SIDE)),
    "vgg16": (models.vgg16, False, (1, 3, SIDE, SIDE)),
    "vgg16-without-fc": (lambda: models.vgg16(0), False, (1, 3, SIDE, SIDE)),
    "alexnet": (models.alexnet, False, (1, 3, SIDE, SIDE)),
    "mobilenet_v2": (models.mobilenet_v2, False, (1, 3, SIDE, SIDE)),
    "unet": (models.UNet, False, (1, 3, SIDE, SIDE)),
    "ffdnet": (_Denoiser, True, (1, 3, 424, 640)),
    "realesr-animevideov3-x2": (models.load_realesr, True, (1, 3, 180, 320)),
}
LIGHT = tuple(f"light-{name}" for name in light_models.NAMES)
NAMES = (*ZOO, *LIGHT)


def make(name: str, density: float) -> Made:
    """A network of :data:`NAMES` with this share of its weights.

    Networks in PyTorch are pruned in the Winograd domain where that can be; those without zeros go
    through an ONNX file. Light models are pruned where they are.

    Raises:
        MissingExtra: published weights that are not installed.
    """
    return _light(name.removeprefix("light-"), density) if name in LIGHT else _zoo(name, density)


def _zoo(name: str, density: float) -> Made:
    make_model, published, shape = ZOO[name]
    random = torch.Generator().manual_seed(4)
    # Images to enlarge and to denoise are between 0 and 1; others are normalised.
    draw = torch.rand if published else torch.randn
    some = draw((_CALIBRATION, *shape[1:]), generator=random)
    x, model = some[:1], make_model()
    if not published:
        model = models.settle_statistics(models.seed_weights(model), some)
    if density < 1:
        model = models.settle_statistics(models.prune_at_once(model, density, x), some)
    with torch.no_grad():
        answers = {"PyTorch": [model.eval()(x).numpy()]}
    if density < 1:
        return Made(driver.import_torch(model, (x,)), x.numpy(), answers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(model, x.numpy(), path)
        answers["ONNX Runtime"] = _onnxruntime(str(path), x.numpy())
        return Made(driver.import_onnx(path), x.numpy(), answers)


def _light(name: str, density: float) -> Made:
    proto = light_models.with_random_weights(light_models.path_of(name))
    if density < 1:
        prune(proto, density)
    shape = light_models.input_shape(proto)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    answers = {"ONNX Runtime": _onnxruntime(proto.SerializeToString(), x)}
    return Made(driver.import_onnx(proto), x, answers)


def prune(proto: onnx.ModelProto, density: float) -> None:
    """Zeros for the smallest weights of every convolution without groups and matrix, in place."""
    nodes = [n for n in proto.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    grouped = {n.input[1] for n in nodes for a in n.attribute if a.name == "group" and a.i > 1}
    weights = {n.input[1] for n in nodes} - grouped
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            array = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            array[~keep_largest(array.abs(), 1 - density)] = 0
            tensor.CopyFrom(numpy_helper.from_array(array.numpy(), tensor.name))


def _onnxruntime(model: str | bytes, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    weights = {i.name for i in session.get_overridable_initializers()}
    (source,) = [i.name for i in session.get_inputs() if i.name not in weights]
    return session.run(None, {source: x})
