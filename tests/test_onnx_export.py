"""PyTorch networks as ONNX: right in other runtimes, and unchanged when they come back."""

import os
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx_models import TOLERANCE, relative_error, run_openvino, run_ort, winograd_model
from torch import nn

from tvm_sparsewino import driver
from tvm_sparsewino.cli import main as cli
from tvm_sparsewino.errors import ExportFailed, ImportFailed, MissingExtra
from tvm_sparsewino.nn.convert import convert
from tvm_sparsewino.nn.export import exported_program
from tvm_sparsewino.nn.layers import WinogradConv2d
from tvm_sparsewino.nn.models import FFDNet
from tvm_sparsewino.nn.onnx_export import onnx_model
from tvm_sparsewino.onnx_io import writing
from tvm_sparsewino.onnx_io.emitting import winograd_emitter
from tvm_sparsewino.onnx_io.loading import load_graph
from tvm_sparsewino.onnx_io.operator import is_winograd


class Net(nn.Module):
    """Winograd layers of two tiles, one called twice, other paddings, a plain layer."""

    def __init__(self):
        super().__init__()
        self.stem = WinogradConv2d(3, 8, 3, m=4, padding=1)
        self.body = WinogradConv2d(8, 8, 3, m=2, padding=(1, 1, 1, 1), groups=2, bias=False)
        self.wide = WinogradConv2d(8, 8, 5, m=4, padding=2, padding_mode="reflect")
        self.head = nn.Conv2d(8, 2, 1)
        generator = torch.Generator().manual_seed(3)
        self.stem.set_mask(torch.rand(self.stem.weight.shape, generator=generator) < 0.3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = self.body(torch.relu(self.body(x))) + x
        return self.head(self.wide(x))


DYNAMIC = {"x": {0: "batch", 2: "height", 3: "width"}}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def folder(net, tmp_path_factory):
    """The network in both forms, its sizes open, exported in training mode."""
    folder = tmp_path_factory.mktemp("onnx")
    net.train()
    for name, inline in (("functions", False), ("inlined", True)):
        example = (torch.zeros(2, 3, 12, 12),)
        path = folder / f"{name}.onnx"
        driver.export_onnx(net, example, path, inline=inline, dynamic=DYNAMIC)
    assert net.training
    assert sorted(os.listdir(folder)) == ["functions.onnx", "inlined.onnx"]
    return folder


def torch_output(net, x):
    with torch.no_grad():
        return net.eval()(torch.from_numpy(x)).numpy()


def images(rng, *sizes):
    return [rng.standard_normal(size).astype(np.float32) for size in sizes]


@pytest.mark.parametrize("form", ["functions", "inlined"])
def test_onnx_runtime_computes_the_same_at_any_size(form, net, folder, rng):
    for x in images(rng, (1, 3, 9, 14), (3, 3, 8, 5)):
        got = run_ort(folder / f"{form}.onnx", x)
        assert relative_error(got, torch_output(net, x)) < TOLERANCE


def test_openvino_computes_the_same_from_the_inlined_form(net, folder, rng):
    pytest.importorskip("openvino", reason="openvino is not installed")
    (x,) = images(rng, (2, 3, 9, 14))
    got = run_openvino(folder / "inlined.onnx", x)
    assert relative_error(got, torch_output(net, x)) < TOLERANCE


@pytest.mark.parametrize("form", ["functions", "inlined"])
def test_it_comes_back_with_the_same_plan_and_output(form, net, folder, rng):
    (x,) = images(rng, (1, 3, 9, 14))
    ours = driver.compile(driver.import_torch(net, (torch.from_numpy(x),)), "llvm", num_threads=1)
    back = driver.import_onnx(folder / f"{form}.onnx", {"x": x.shape})
    back = driver.compile(back, "llvm", num_threads=1)
    assert back.plan == ours.plan
    assert [p.name for p in back.plan] == ["stem", "body", "body:2", "wide", "head"]
    np.testing.assert_array_equal(back(x), ours(x))


def test_what_a_file_says(folder):
    model = onnx.load(folder / "functions.onnx")
    nodes = [node for node in model.graph.node if is_winograd(node)]
    assert [node.name for node in nodes] == ["stem", "body", "body:2", "wide"]
    assert len(model.functions) == 3  # one per kind of layer
    assert "tvm-sparsewino" in [entry.key for entry in model.metadata_props]
    inlined = onnx.load(folder / "inlined.onnx")
    assert not inlined.functions
    assert {node.domain for node in inlined.graph.node} == {""}
    assert [o.domain for o in inlined.opset_import] == [""]
    here = os.path.dirname(__file__).encode()
    for name in ("functions", "inlined"):
        assert here not in (folder / f"{name}.onnx").read_bytes()  # PyTorch notes source files
        onnx.checker.check_model(folder / f"{name}.onnx", full_check=True)


def test_exports_are_repeatable(folder):
    """The weights of the layer that is called twice are in the file once."""
    model = onnx.load(folder / "functions.onnx")
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))
    assert names.count("body.weight") == 1


# ---- FFDNet both ways --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ffdnet():
    torch.manual_seed(2)
    return convert(FFDNet(width=8, depth=4).eval(), tile=4)


def test_ffdnet_both_ways(ffdnet, tmp_path, rng):
    image = rng.random((1, 3, 22, 18), np.float32)
    arrays = (image, np.array([25 / 255], np.float32))
    example = tuple(map(torch.from_numpy, arrays))
    direct = driver.compile(driver.import_torch(ffdnet, example), "native", num_threads=1)
    path = tmp_path / "ffdnet.onnx"
    driver.export_onnx(ffdnet, example, path)
    through = driver.compile(driver.import_onnx(path), "native", num_threads=1)
    assert through.plan == direct.plan
    assert [i.name for i in through.inputs] == ["image", "sigma"]
    np.testing.assert_array_equal(through(*arrays), direct(*arrays))
    with torch.no_grad():
        want = ffdnet(*example).numpy()
    assert relative_error(through(*arrays), want) < TOLERANCE
    assert relative_error(run_ort(path, *arrays), want) < TOLERANCE


def test_the_command(ffdnet, tmp_path, capsys):
    example = (torch.zeros(1, 3, 12, 16), torch.zeros(1))
    torch.export.save(exported_program(ffdnet, example), tmp_path / "net.pt2")
    out = tmp_path / "net.onnx"
    command = ["export", str(tmp_path / "net.pt2"), "-o", str(out)]
    assert cli.main([*command, "--inline"]) == 0
    assert "net.onnx: 0.1 MB" in capsys.readouterr().out
    assert len(load_graph(out).nodes) > 4
    assert cli.main(["export", "net.onnx", "-o", str(out)]) == 4
    assert "cannot read '.onnx'" in capsys.readouterr().err
    assert cli.main([*command[:-1], "net.so"]) == 4
    assert "must end with .onnx" in capsys.readouterr().err


# ---- writing -----------------------------------------------------------------------------------


def test_large_tensors_go_to_a_file_of_their_own(tmp_path, rng):
    made, _, _ = winograd_model(rng, 4, 3, (1, 1, 1, 1), 1, True, c=4, k=64)
    x = rng.standard_normal((1, 4, 9, 9)).astype(np.float32)
    want = run_ort(made, x)
    path = tmp_path / "net.onnx"
    size = len(made.SerializeToString())
    writing.save(writing.finish(made), path, external_above=writing._STRUCTURE + 100)
    assert sorted(os.listdir(tmp_path)) == ["net.onnx", "net.onnx.data"]
    assert path.stat().st_size < size / 2
    np.testing.assert_array_equal(run_ort(path, x), want)
    exe = driver.compile(driver.import_onnx(path, {"x": x.shape}), "llvm", num_threads=1)
    assert relative_error(exe(x), want) < TOLERANCE
    (tensor,) = [
        t for t in onnx.load(path, load_external_data=False).graph.initializer if t.dims[0] == 36
    ]
    assert tensor.data_location == TensorProto.EXTERNAL


def test_no_half_file_is_left(tmp_path, rng, monkeypatch):
    made, _, _ = winograd_model(rng, 2, 3, (1, 1, 1, 1), 1, True)
    finished = writing.finish(made)
    path = tmp_path / "net.onnx"
    path.write_text("what was there")
    finished.graph.node[0].input[0] = "nobody"
    with pytest.raises(ExportFailed, match="not a valid ONNX model"):
        writing.save(finished, path)
    assert path.read_text() == "what was there"
    assert os.listdir(tmp_path) == ["net.onnx"]
    with pytest.raises(ExportFailed, match="cannot be written: No such file"):
        writing.save(finished, tmp_path / "no" / "net.onnx")


# ---- refusals ----------------------------------------------------------------------------------


class Strange(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_pytorch_cannot_export_is_refused(tmp_path):
    x = torch.ones(1, 3, 4, 4)
    path = tmp_path / "net.onnx"
    with pytest.raises(ExportFailed, match=r"Strange cannot be exported: .*bessel_j0"):
        driver.export_onnx(Strange(), (x,), path)
    with pytest.raises(ExportFailed, match="Branches cannot be exported"):
        driver.export_onnx(Branches(), (x,), path)
    with pytest.raises(ExportFailed, match="example must be a tuple"):
        driver.export_onnx(Branches(), x, path)
    assert not os.listdir(tmp_path)


def test_opsets(net, tmp_path, monkeypatch):
    x = torch.ones(1, 3, 12, 12)
    driver.export_onnx(net, (x,), tmp_path / "net.onnx", opset=18)
    model = onnx.load(tmp_path / "net.onnx")
    assert [o.version for o in model.opset_import if not o.domain] == [18]
    emit = winograd_emitter()
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program(model))
    with pytest.raises(ExportFailed, match="to opset 18, not to 21"):
        onnx_model(net, (x,), emit, 21)
    next(o for o in model.opset_import if not o.domain).version = 14
    with pytest.raises(ExportFailed, match="need opset 15 or later, got 14"):
        writing.finish(model)


class Program:
    def __init__(self, model):
        self.model_proto = model


def test_missing_packages_are_named(net, tmp_path, monkeypatch):
    for name in ("onnx", "onnxscript"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(MissingExtra, match=rf"{name} is not .*tvm-sparsewino\[onnx\]"):
                driver.export_onnx(net, (), tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match="onnx is not installed"):
        driver.import_onnx(tmp_path / "net.onnx")
    with pytest.raises(ImportFailed, match="such file"):
        driver.read_exported(tmp_path / "no.pt2")
