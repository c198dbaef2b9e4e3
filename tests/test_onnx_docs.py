"""Every command and every line of Python in docs/onnx.md runs, in its order."""

import re
import shlex
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import tvm_sparsewino as sw
from tvm_sparsewino.cli import main as cli
from tvm_sparsewino.nn import models
from tvm_sparsewino.nn.export import exported_program
from tvm_sparsewino.nn.layers import WinogradConv2d
from tvm_sparsewino.onnx_io import folding, functions, operator

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "onnx.md").read_text()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = WinogradConv2d(3, 8, 3, m=4, padding=1)

    def forward(self, x):
        return torch.relu(self.conv(x))


def test_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_ffdnet", lambda: models.FFDNet(width=4, depth=2).eval())
    torch.manual_seed(0)
    model, example = Net(), torch.zeros(2, 3, 8, 8)
    torch.export.save(exported_program(model, (example,)), "net.pt2")
    scope = {"model": model, "example": example, "sw": sw}
    blocks = re.findall(r"```(sh|python)\n(.*?)```", TEXT, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "sh", "sh", "python", "sh", "python"]
    for kind, text in blocks:
        if kind == "python":
            exec(text, scope)
            if "dynamic" in text:
                Path("net.onnx").rename("open.onnx")
                sw.export_onnx(model, (example,), "net.onnx")
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            assert (program, cli.main(arguments)) == ("sparsewino", 0)
    assert scope["network"].inputs[0].shape == (1, 3, 32, 32)
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"net.onnx", "ffdnet.onnx", "net-inlined.onnx", "net.so", "open.so"}
    assert not onnx.load("net-inlined.onnx").functions


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("functions to 200,000 nodes", functions.MAX_NODES == 200_000),
        ("limited to 2 GiB", folding.MAX_ELEMENTS * 4 == 2 << 30),
        ("WinogradConv2d`, version 1.", operator.VERSION == 1),
        ("`tvm.sparsewino::WinogradConv2d`", operator.DOMAIN == "tvm.sparsewino"),
    ],
)
def test_numbers_on_the_page(text, number):
    assert text in TEXT.replace("\n", " ")
    assert number
