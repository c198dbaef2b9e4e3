"""5x5 and 7x7 layers in the Winograd domain: converted, pruned there, compiled."""

from fractions import Fraction
from itertools import combinations

import pytest
import torch
from torch import nn

import tvm_sparsewino as sw
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.nn import NativePruner, PruneConfig, convert, prune_one_shot
from tvm_sparsewino.nn.calibration import winograd_layers

AVX2 = "llvm -mcpu=x86-64-v3"  # wider vectors leave a map this small to dense kernels
SIZES = [(2, 5), (4, 5), (2, 7)]
MAGNITUDES = tuple(map(Fraction, ("1", "2", "1/2", "3/2", "2/3", "3", "1/3", "3/4", "4/3", "4")))


def network(r, channels=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, channels, r, padding=r // 2),
        nn.ReLU(),
        nn.Conv2d(channels, channels, r, padding=r // 2 - 1, groups=2),
    )


@pytest.mark.parametrize(("m", "r"), [(4, 5), (2, 7)])
def test_no_other_points_have_a_smaller_error(m, r):
    """Of all choices of 0 and pairs of opposite points among the usual fractions."""
    best = cook_toom(m, r).error_estimate()
    for chosen in combinations(MAGNITUDES, (m + r - 2) // 2):
        points = (Fraction(0), *(p for x in chosen for p in (x, -x)))
        assert cook_toom(m, r, points).error_estimate() > best * (1 - 1e-9)


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_same_function(m, r):
    plain, x = network(r), torch.randn(2, 3, 17, 14)
    model = convert(plain, m)
    assert [(c.name, c.m) for c in model.conversion] == [("0", m), ("2", m)]
    with torch.no_grad():
        want, have = plain(x), model(x)
    # Two layers, each within three times the estimate.
    limit = 2 * 3 * cook_toom(m, r).error_estimate()
    assert float((have - want).abs().max()) < limit * float(want.abs().max())


@pytest.mark.parametrize(("m", "r", "file"), [(2, 5, False), (4, 5, True), (2, 7, False)])
def test_pruned_and_compiled(m, r, file, tmp_path):
    model, x = convert(network(r)[2:], m).eval(), torch.randn(2, 8, 17, 14)
    NativePruner(model, PruneConfig(0.8, "white", end_step=1)).step()
    with torch.no_grad():
        want = model(x).numpy()
    if file:
        path = tmp_path / "model.onnx"
        sw.export_onnx(model, (x,), path)
        mod = sw.import_onnx(path)
    else:
        mod = sw.import_torch(model, (x,))
    exe = sw.compile(mod, target=AVX2)
    (plan,) = exe.plan
    assert (plan.m, plan.conv.r, plan.algorithm) == (m, r, "sparse_winograd")
    limit = 3 * cook_toom(m, r).error_estimate()
    assert abs(exe(x.numpy()) - want).max() < limit * abs(want).max()


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_one_shot_is_far_better_than_by_magnitude(m, r):
    dense = convert(network(r), m).eval()
    batches = [nn.functional.avg_pool2d(torch.randn(4, 3, 26, 26), 3, 1) for _ in range(3)]
    pruned = prune_one_shot(dense, batches, 0.6, iterations=20)
    plain = convert(network(r), m).eval()
    NativePruner(plain, PruneConfig(0.6, "white", end_step=1)).step()
    x = nn.functional.avg_pool2d(torch.randn(4, 3, 26, 26), 3, 1)
    with torch.no_grad():
        want = dense(x)
        errors = [float((net(x) - want).square().mean()) for net in (pruned, plain)]
    assert errors[0] < 0.3 * errors[1]
    assert set(winograd_layers(pruned)) == {"0", "2"}


def test_tiles_by_kernel_size_and_what_loses_too_many_digits():
    model = nn.Sequential(*(nn.Conv2d(2, 2, r, padding=r // 2) for r in (3, 5, 7)))
    found = {c.name: (c.m, c.reason) for c in convert(model, {3: 4, 7: 2}).conversion}
    assert found["0"][0] == 4 and found["2"][0] == 2
    assert found["1"] == (0, "no tile is given for 5x5 kernels")
    found = {c.name: (c.m, c.reason) for c in convert(model, 6).conversion}
    assert found["1"][0] == 6 and "F(6,7) would be off by" in found["2"][1]
    auto = convert(model, example=torch.zeros(1, 2, 24, 24)).conversion
    assert auto[2].m == 2 and auto[1].m in (2, 4)
    for tile in ({3: 5}, {3: True}):
        with pytest.raises(ConfigError, match="one of"):
            convert(model, tile)
    with pytest.raises(ConfigError, match=r"knows sizes \(3, 5, 7\), got {4: 2}"):
        convert(model, {4: 2})
