"""Every command and every line of Python in docs/deployment.md runs, in its order."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tvm_sparsewino.cli import main as cli

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "deployment.md").read_text()


def shell(text):
    """Run commands in the current folder: ours here, the rest in a process of its own."""
    for line in text.splitlines():
        program, *arguments = shlex.split(line)
        if program == "sparsewino":
            assert cli.main(arguments) == 0
        elif program == "cd":
            os.chdir(arguments[0])
        else:
            subprocess.run([program, *arguments], check=True, env={"PATH": os.environ["PATH"]})


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine")
def test_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    example = torch.rand(1, 3, 32, 32)
    x = example.numpy()
    np.save("input.npy", x)
    scope = {"model": model, "example": example, "x": x}
    blocks = re.findall(r"```(sh|python)\n(.*?)```", TEXT, re.DOTALL)
    assert [kind for kind, _ in blocks] == [*("python", "sh"), *("python",) * 5, *("sh",) * 2]
    results = []
    for kind, text in blocks:
        if kind == "sh":
            shell(text)
        else:
            if "cut.so" in text:
                Path("cut.so").write_bytes(Path("net.so").read_bytes()[:-100])
            exec(text, scope)
            results.append(scope.get("y"))
    with torch.no_grad():
        want = model(example).numpy()
    for y in (*results[2:], np.load("output.npy")):
        # Of the output's maximum: float32 sums of 27 terms, in another order.
        assert np.abs(np.asarray(y) - want).max() <= 1e-5 * want.max()
    assert "cut.so: not a compiled network of this package, or cut off" in capsys.readouterr().out
