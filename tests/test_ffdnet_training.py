"""The denoiser's training: noisy patches of photos, and the recipe from dense to pruned."""

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn
from training_cases import Stop

from tvm_sparsewino.errors import ConfigError, MissingExtra, ShapeError
from tvm_sparsewino.nn import WinogradConv2d
from tvm_sparsewino.nn import patches as patches_module
from tvm_sparsewino.nn.ffdnet_training import FFDNetTraining, train_ffdnet
from tvm_sparsewino.nn.models import FFDNet
from tvm_sparsewino.nn.patches import NoisyPatches, load_photos
from tvm_sparsewino.nn.weights_io import load_into


def test_patches_are_random_access_and_noisy_as_told():
    photos = {"a": torch.rand(3, 70, 80), "b": torch.rand(3, 20, 90)}
    patches = NoisyPatches(photos, 32, sigmas=(10, 20), seed=3)
    late = patches.batch(7, 3)
    patches.batch(1, 2)
    for a, b in zip(late, patches.batch(7, 3), strict=True):
        assert torch.equal(a, b)
    clean, noisy, sigma = patches.batch(0, 8)
    assert clean.shape == (8, 3, 32, 32) and clean.dtype == noisy.dtype == torch.float32
    assert bool(((sigma * 255 >= 10) & (sigma * 255 <= 20)).all())
    # 3072 samples: the estimate's own deviation is 1.3 %.
    assert torch.allclose((noisy - clean).flatten(1).std(1), sigma, rtol=0.08)
    assert not torch.equal(clean[0], clean[1])
    assert not torch.equal(patches.batch(0, 1)[0], patches.batch(1, 1)[0])
    assert not torch.equal(NoisyPatches(photos, 32, seed=4).batch(7, 3)[0], late[0])
    with pytest.raises(ShapeError, match="as large as"):
        NoisyPatches(photos, 96)


def test_photos(monkeypatch):
    pytest.importorskip("skimage")
    photos = load_photos()
    assert {"astronaut.png", "coffee.png"} <= set(photos)
    assert all(x.shape[0] == 3 and x.min() >= 0 and x.max() <= 1 for x in photos.values())
    monkeypatch.setattr(patches_module, "PHOTOS", {"nothing.png": 1.0})
    with pytest.raises(MissingExtra, match="no photos"):
        load_photos()


@pytest.fixture
def small_ffdnet(monkeypatch):
    net = FFDNet(width=8, depth=4).eval()
    module = "tvm_sparsewino.nn.ffdnet_training."
    monkeypatch.setattr(module + "load_ffdnet", lambda: copy.deepcopy(net))
    monkeypatch.setattr(module + "FFDNet", lambda: FFDNet(width=8, depth=4))
    return net


def test_ffdnet_recipe_resumes_and_writes_a_pruned_file(tmp_path, small_ffdnet):
    photos = {"a": torch.rand(3, 48, 48)}
    config = FFDNetTraining(
        sparsity=0.6,
        calibration_patches=4,
        iterations=5,
        whitening_patches=2,
        steps=4,
        batch=2,
        patch=24,
        log_every=2,
        save_every=2,
    )
    path = train_ffdnet(config, tmp_path / "a", photos=photos, progress=False)
    model = load_into(FFDNet(width=8, depth=4), path)
    inner = [x for x in model.modules() if isinstance(x, WinogradConv2d)]
    assert [type(x) for x in (model.model[0], model.model[-1])] == [nn.Conv2d] * 2
    assert len(inner) == 2
    for layer in inner:
        assert float((layer.winograd_weight == 0).float().mean()) == pytest.approx(0.6, abs=1e-3)
    lines = [json.loads(x) for x in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == [0, 2, 4] and all("held_out" in x for x in lines)

    def killed(network):
        killed.calls += 1
        if killed.calls == 2:
            raise Stop
        return {}

    killed.calls = 0
    with pytest.raises(Stop):
        train_ffdnet(config, tmp_path / "b", photos=photos, evaluate=killed, progress=False)
    again = train_ffdnet(config, tmp_path / "b", photos=photos, progress=False)
    assert again.read_bytes() == path.read_bytes()
    once = train_ffdnet(config, tmp_path / "b", resume=False, photos=photos, progress=False)
    assert once.read_bytes() == path.read_bytes()
    other = dataclasses.replace(config, sparsity=0.5)
    with pytest.raises(ConfigError, match="another configuration"):
        train_ffdnet(other, tmp_path / "b", photos=photos, progress=False)


def test_ffdnet_recipe_without_training_takes_a_pruned_file_as_it_is(tmp_path, small_ffdnet):
    photos = {"a": torch.rand(3, 48, 48)}
    config = FFDNetTraining(
        sparsity=0.6, tile=2, calibration_patches=2, iterations=2, steps=0, batch=2, patch=24
    )
    path = train_ffdnet(config, tmp_path / "a", photos=photos, progress=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "pruned.safetensors").write_bytes(path.read_bytes())
    other = dataclasses.replace(config, sparsity=0.3)
    again = train_ffdnet(other, tmp_path / "b", photos=photos, progress=False)
    assert again.read_bytes() == path.read_bytes()
