"""The Winograd-ReLU layer: function, gradients, conversion, files, operators and kernels."""

import copy

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn
from torch.nn import functional as F

import tvm_sparsewino as sw
from tvm_sparsewino import reference
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ConfigError, WeightsError
from tvm_sparsewino.nn import NativePruner, PruneConfig, WinogradConv2d, convert, prune_one_shot
from tvm_sparsewino.nn.calibration import transformed_input
from tvm_sparsewino.nn.functional import winograd_conv2d
from tvm_sparsewino.nn.operator import winograd_conv2d as operator
from tvm_sparsewino.nn.weights_io import load_into, save_model
from tvm_sparsewino.nn.winograd_relu import move_relus
from tvm_sparsewino.weights import load_weights


def values(m, r, groups=1, n=2, c=4, k=6, size=(7, 9)):
    """x, U and bias in float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((n, c, *size), ((m + r - 1) ** 2, k, c // groups), (k,))
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (2, 5)])
@pytest.mark.parametrize("groups", [1, 2])
def test_forward_is_the_reference(m, r, groups):
    x, u, bias = values(m, r, groups)
    padding = (1, 0, 2, 1)
    have = winograd_conv2d(x, u, bias, m, r, padding, groups, relu=True)
    arrays = (x.numpy(), u.numpy(), cook_toom(m, r), bias.numpy(), padding, groups)
    assert np.allclose(have, reference.winograd_conv2d(*arrays, relu=True), rtol=0, atol=1e-10)
    assert not np.allclose(have, reference.winograd_conv2d(*arrays), rtol=0, atol=0.1)


@pytest.mark.parametrize(("m", "r", "groups"), [(2, 3, 2), (4, 3, 1), (2, 5, 1)])
def test_gradients(m, r, groups):
    x, u, bias = values(m, r, groups, c=2, k=2, size=(5, 6))
    inputs = [t.requires_grad_() for t in (x, u, bias)]

    def call(*args, function=winograd_conv2d):
        return function(*args, m, r, [1, 1, 1, 1], groups, True)

    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    wanted = torch.autograd.grad(call(*inputs).square().sum(), inputs)
    got = torch.autograd.grad(call(*inputs, function=operator).square().sum(), inputs)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
    only_x = torch.autograd.grad(call(inputs[0], u.detach(), None).square().sum(), inputs[0])
    assert torch.allclose(
        only_x[0], torch.autograd.grad(call(*inputs[:2], None).square().sum(), inputs[0])[0]
    )
    first = torch.autograd.grad(call(*inputs).square().sum(), inputs[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


class Shortcut(nn.Module):
    """ReLUs in front of one convolution, of two, of a shortcut and a convolution, of pooling."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.a = nn.Conv2d(6, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.c = nn.Conv2d(6, 6, 3, padding=1)
        self.d = nn.Conv2d(6, 6, 3, padding=1)
        self.strided = nn.Conv2d(6, 6, 3, stride=2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.first(x))
        y = self.a(x) + self.b(x)
        y = F.relu(y)
        z = y + self.c(y)
        z = self.d(z.relu())
        return self.strided(self.relu(z))


def test_relus_move_where_winograd_layers_alone_use_them():
    model = convert(Shortcut(), 2).eval()
    model.c.eval(), model.d.train()
    moved = move_relus(model)
    assert moved.moved_relus == ["a", "b", "d"]
    assert [n for n, x in moved.named_modules() if getattr(x, "winograd_relu", False)] == [
        "a",
        "b",
        "d",
    ]
    assert not moved.training and moved.d.training and not model.a.winograd_relu
    assert moved.state_dict().keys() == model.state_dict().keys()
    assert moved.conversion == model.conversion

    def by_hand(x):
        x = moved.first(x)
        y = F.relu(moved.a(x) + moved.b(x))
        return moved.strided(F.relu(moved.d(y + moved.c(y))))

    x = torch.randn(2, 3, 11, 12)
    assert torch.equal(moved(x), by_hand(x))
    assert not torch.allclose(moved(x), model(x), atol=1e-3)


class Partly(nn.Module):
    """A ReLU in place whose input is read again, and a layer that runs with and without one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.other = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        y = x + 1
        z = self.other(F.relu_(y)) + y
        return self.conv(F.relu(z)) + self.conv(x)


def test_relus_that_others_read_stay():
    model = convert(Partly(), 2)
    moved = move_relus(model)
    assert moved.moved_relus == []
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(moved(x), model(x))


def test_networks_that_cannot_be_traced():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match="Branches cannot be traced"):
        move_relus(Branches())


def small(tile=4):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2)
    )
    return move_relus(convert(net, tile).eval())


def test_trains_and_prunes():
    model = small(2)
    layer = model.get_submodule("2")
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    pruner = NativePruner(model, PruneConfig(0.5, "white", end_step=2))
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        pruner.step()
    assert not torch.equal(layer.weight, before) and pruner.sparsity == pytest.approx(0.5, abs=0.01)
    assert bool((transformed_input(layer, torch.randn(1, 8, 6, 6)) >= 0).all())
    x = [torch.randn(4, 3, 16, 16) for _ in range(3)]
    fresh = small(2)
    pruned = prune_one_shot(fresh, x, 0.5)
    plain = copy.deepcopy(fresh)
    NativePruner(plain, PruneConfig(0.5, "white", end_step=1)).step()
    with torch.no_grad():
        want = fresh(x[0])
        errors = [float((net(x[0]) - want).square().mean()) for net in (pruned, plain)]
    assert errors[0] < 0.8 * errors[1]


def test_checkpoints_and_files_keep_the_relu(tmp_path):
    model = small()
    plain = convert(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2)), 4)
    with pytest.raises(WeightsError, match=r"2: expected version 1 .*holds version 2 of .*a ReLU"):
        plain.load_state_dict(model.state_dict())
    small().load_state_dict(model.state_dict())
    path = tmp_path / "weights.safetensors"
    save_model(model, path)
    assert [layer.relu for layer in load_weights(path)] == [False, True]
    other = load_into(small(), path)
    x = torch.randn(1, 3, 9, 9)
    assert torch.allclose(other(x), model(x), atol=1e-5)
    with pytest.raises(WeightsError, match="'2': expected no ReLU of transformed inputs, the file"):
        load_into(plain, path)
    assert "winograd_relu=True" in repr(model.get_submodule("2"))


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("inline", [False, True])
def test_compiled_from_torch_and_onnx(tile, inline, tmp_path):
    model, x = small(tile), torch.randn(1, 3, 13, 15)
    NativePruner(model, PruneConfig(0.6, "white", end_step=1)).step()
    want = model(x).detach().numpy()
    path = tmp_path / "model.onnx"
    sw.export_onnx(model, (x,), path, inline=inline)
    for mod in (sw.import_torch(model, (x,)), sw.import_onnx(path)):
        exe = sw.compile(mod, target="native")
        plan = {p.name: p for p in exe.plan}["2"]
        assert plan.winograd_relu and plan.m == tile and plan.algorithm.endswith("winograd")
        assert "behind a ReLU of the transformed inputs" in plan.reason
        # float32 with F(4,3): 1e-5 of the largest output is several times its rounding.
        assert abs(exe(x.numpy()) - want).max() < 1e-5 * abs(want).max()


def test_onnxruntime_runs_the_body(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = small(), torch.randn(2, 3, 8, 9)
    for inline in (False, True):
        path = tmp_path / f"model{inline}.onnx"
        sw.export_onnx(model, (x,), path, inline=inline)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (have,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        want = model(x).detach().numpy()
        assert abs(have - want).max() < 1e-5 * abs(want).max()


def test_attribute_of_the_onnx_operator():
    from tvm_sparsewino.errors import ImportFailed
    from tvm_sparsewino.onnx_io.operator import DOMAIN, OP_TYPE, attributes, read_spec

    def node(**extra):
        given = {**attributes(2, 3, (1, 1, 1, 1), 1), **extra}
        return helper.make_node(OP_TYPE, ["x", "u"], ["y"], domain=DOMAIN, **given)

    assert not read_spec(node()).relu and "winograd_relu" not in attributes(2, 3, (0,) * 4, 1)
    assert read_spec(node(winograd_relu=1)).relu and not read_spec(node(winograd_relu=0)).relu
    with pytest.raises(ImportFailed, match="winograd_relu must be 0 or 1, got 2"):
        read_spec(node(winograd_relu=2))
    with pytest.raises(ImportFailed, match=r"attributes \['winograd_relu'\] are missing, unknown"):
        read_spec(node(winograd_relu="yes"))


def test_layers_that_no_kernel_takes_keep_their_meaning():
    """Weights that are no constants: the operator's plain meaning runs, ReLU and all."""
    from tvm import relax

    from tvm_sparsewino.cook_toom import canonical_points, points_to_text
    from tvm_sparsewino.relay_passes.ops import winograd_conv2d as make

    x, u, bias = (t.float().numpy() for t in values(2, 3))
    builder = relax.BlockBuilder()
    inputs = [
        relax.Var(name, relax.TensorType(array.shape, "float32"))
        for name, array in (("x", x), ("u", u), ("bias", bias))
    ]
    attributes = {
        "m": 2,
        "r": 3,
        "points": points_to_text(canonical_points(2, 3)),
        "padding": (1, 1, 1, 1),
        "relu": True,
    }
    with builder.function("main", inputs):
        builder.emit_func_output(builder.emit(make(*inputs, **attributes)))
    exe = sw.compile(builder.get(), target="native")
    assert exe.plan[0].algorithm == "left"
    want = reference.winograd_conv2d(x, u, cook_toom(2, 3), bias, (1, 1, 1, 1), relu=True)
    assert abs(exe(x, u, bias) - want).max() < 1e-5 * abs(want).max()


def test_a_plan_of_another_layer_is_refused():
    from tvm_sparsewino.relay_passes import SparsifyConvs, plan

    with_it, x = small(), torch.randn(1, 3, 8, 8)
    without = copy.deepcopy(with_it)
    without.get_submodule("2").winograd_relu = False
    mods = [sw.import_torch(model, (x,)) for model in (with_it, without)]
    with pytest.raises(ConfigError, match="one with a ReLU of transformed inputs, the layer one w"):
        SparsifyConvs(plan(mods[0], "native"), "native")(mods[1])


def test_only_winograd_plans_have_it():
    with pytest.raises(ConfigError, match="kernels have no winograd_relu"):
        sw.LayerPlan("x", None, 1.0, "dense_direct", winograd_relu=True)


def test_the_layer_itself():
    layer = WinogradConv2d(3, 4, 3, 2, padding=1, winograd_relu=True, dtype=torch.float64)
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    u, bias = layer.winograd_weight.detach().numpy(), layer.bias.detach().numpy()
    want = reference.winograd_conv2d(x.numpy(), u, cook_toom(2, 3), bias, (1,) * 4, relu=True)
    assert np.allclose(layer(x).detach(), want, atol=1e-12)
