"""PyTorch networks in TVM: function, names, refusals."""

import numpy as np
import pytest
import torch
from torch import nn
from tvm import relax

from tvm_sparsewino import driver
from tvm_sparsewino.cook_toom import canonical_points, points_to_text
from tvm_sparsewino.errors import ImportFailed, ShapeError
from tvm_sparsewino.nn.layers import WinogradConv2d
from tvm_sparsewino.relay_passes import plan
from tvm_sparsewino.relay_passes.bindings import Bindings
from tvm_sparsewino.relay_passes.import_torch import import_exported_program
from tvm_sparsewino.relay_passes.operators import WINOGRAD
from tvm_sparsewino.relay_passes.ops import is_call_to
from tvm_sparsewino.relay_passes.patterns import LAYER_NAMES

X = torch.linspace(-1, 1, 2 * 3 * 9 * 7).reshape(2, 3, 9, 7)


class Net(nn.Module):
    """Winograd and plain layers, one called twice, BatchNorm, and a way around."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PReLU(4))
        self.body = WinogradConv2d(4, 4, 3, m=4, padding=1, groups=2)
        self.head = nn.Conv2d(4, 2, 1)
        with torch.no_grad():
            for value in self.parameters():
                value.copy_(torch.randn_like(value) / 2)
            self.stem[1].running_mean.normal_()
            self.stem[1].running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.body(x) + x)
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


def test_names_of_layers_are_kept(net):
    mod = driver.import_torch(net, (X,))
    names = [layer.name for layer in plan(mod, "llvm")]
    assert names == ["stem.0", "body", "body:2", "head"]
    assert set(mod["main"].attrs[LAYER_NAMES].values()) == {"stem.0", "body", "head"}
    assert [p.name for p in mod["main"].params] == ["x"]


def test_winograd_layers_stay_whole(net):
    mod = driver.import_torch(net, (X,))
    bindings = Bindings(mod["main"])
    calls = [b.value for b in bindings.order if is_call_to(b.value, WINOGRAD)]
    assert len(calls) == 2
    np.testing.assert_array_equal(
        bindings.constant(calls[0].args[1]), net.body.winograd_weight.detach().numpy()
    )
    attrs = calls[0].attrs
    assert [str(p) for p in attrs["points"]] == list(points_to_text(canonical_points(4, 3)))
    assert [int(p) for p in attrs["padding"]] == [1, 1, 1, 1]
    assert (int(attrs["m"]), int(attrs["r"]), int(attrs["groups"])) == (4, 3, 2)


def test_evaluation_mode_is_meant_and_the_model_is_left_alone(net):
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    exe = driver.compile(driver.import_torch(net, (X,)), "llvm")
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with torch.no_grad():
        want = net.eval()(X).numpy()
    got = exe(X.numpy())
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()  # float32, another order of sums
    assert [layer.algorithm for layer in exe.plan[:3]] == ["dense_winograd"] * 3


class Erfinv(nn.Module):
    def forward(self, x):
        return torch.special.i0e(torch.special.bessel_j0(x))


def test_operators_that_tvm_lacks_are_all_named():
    with pytest.raises(ImportFailed, match=r"cannot import the model") as error:
        driver.import_torch(Erfinv(), (X,))
    assert "special_i0e" in str(error.value)
    assert "special_bessel_j0" in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_refused_by_name(dtype):
    layer = nn.Conv2d(3, 2, 3).to(dtype)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ImportFailed, match=rf"'weight' is {name}; only float32"):
        driver.import_torch(layer, (X.to(dtype),))
    with pytest.raises(ImportFailed, match=rf"'x' is {name}; only float32"):
        driver.import_torch(Identity(), (X.to(dtype),))


class Identity(nn.Module):
    def forward(self, x):
        return x * 2


class Twice(nn.Module):
    """Two outputs, one of them integers."""

    def forward(self, x, other):
        return x + other, x.argmax(1)


def test_several_inputs_and_outputs():
    exe = driver.compile(driver.import_torch(Twice(), (X, X[:1])), "native")
    assert [info.name for info in exe.inputs] == ["x", "other"]
    total, best = exe(X.numpy(), X[:1].numpy())
    np.testing.assert_array_equal(total, (X + X[:1]).numpy())
    np.testing.assert_array_equal(best, X.argmax(1).numpy())
    assert [str(info) for info in exe.outputs] == ["float32 [2, 3, 9, 7]", "int64 [2, 9, 7]"]


def test_models_that_pytorch_cannot_export_are_refused():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ImportFailed, match="Branches cannot be exported"):
        driver.import_torch(Branches(), (X,))
    with pytest.raises(ImportFailed, match="example must be a tuple"):
        driver.import_torch(Identity(), X)


def test_symbolic_dimensions_other_than_the_batch_are_refused():
    height = torch.export.Dim("height", min=4, max=16)
    for layer, kind, text in (
        (WinogradConv2d(3, 2, 3, m=4), ImportFailed, "layer 'model': .*symbolic shape"),
        (nn.Conv2d(3, 2, 3), ShapeError, "input 'x' has the symbolic shape"),
    ):
        model = Wrapped(layer)
        program = torch.export.export(model.eval(), (X,), dynamic_shapes={"x": {2: height}})
        with pytest.raises(kind, match=text):
            driver.compile(import_exported_program(program), "native")


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


# ---- files -------------------------------------------------------------------------------------


def test_exported_files(net, tmp_path):
    from tvm_sparsewino.nn.export import exported_program

    path = tmp_path / "net.pt2"
    torch.export.save(exported_program(net, (X,)), path)
    mod = driver.import_exported(path)
    assert [layer.name for layer in plan(mod, "llvm")] == ["stem.0", "body", "body:2", "head"]


def test_files_that_are_missing_or_something_else(tmp_path):
    with pytest.raises(ImportFailed, match=r"no\.pt2: there is no such file"):
        driver.import_exported(tmp_path / "no.pt2")
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(ImportFailed, match=r"text\.pt2: not an exported PyTorch program"):
        driver.import_exported(tmp_path / "text.pt2")


def test_linear_layers_keep_their_names():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))
    mod = driver.import_torch(net.eval(), (torch.zeros(5, 3),))
    assert [p.name for p in plan(mod, "llvm")] == ["0", "2"]


class Resize(nn.Module):
    """One resizing."""

    def __init__(self, options):
        super().__init__()
        self.options = options

    def forward(self, x):
        return nn.functional.interpolate(x, **self.options)


@pytest.mark.parametrize(
    "options",
    [
        {"size": (4, 9), "mode": "nearest"},
        {"size": (4, 9), "mode": "nearest-exact"},
        {"scale_factor": 2, "mode": "nearest"},
        {"scale_factor": (0.5, 2), "mode": "bilinear"},
        {"size": (13, 3), "mode": "bilinear", "align_corners": True},
        {"scale_factor": 1.3, "mode": "bilinear", "align_corners": True},
        {"size": (9, 7), "mode": "bilinear", "antialias": True},
        {"size": (12, 14), "mode": "bicubic"},
        {"size": (4, 9), "mode": "bicubic", "align_corners": True},
    ],
)
def test_resizing_is_pytorchs(options):
    x = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    network = Resize(options).eval()
    mod = driver.import_torch(network, (x,))
    found = []
    relax.analysis.post_order_visit(
        mod["main"], lambda e: found.append(e.op.name) if isinstance(e, relax.Call) else None
    )
    assert found == ["relax.image.resize2d"]
    got = driver.compile(mod, "native")(x.numpy())
    # PyTorch computes coordinates in float32.
    assert np.abs(got - network(x).numpy()).max() <= 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"scale_factor": 1.3, "mode": "bilinear"},
            "makes no whole number; give their new size, 7",
        ),
        ({"size": (3, 3), "mode": "bilinear", "antialias": True}, "antialias=True"),
    ],
)
def test_resizing_that_tvm_does_not_compute(options, words):
    with pytest.raises(ImportFailed, match=words):
        driver.import_torch(Resize(options).eval(), (torch.randn(1, 3, 6, 7),))


def test_resizing_maps_of_any_size():
    x, rows = torch.randn(1, 3, 6, 7), torch.export.Dim("rows", min=2, max=64)
    network = Resize({"scale_factor": 2, "mode": "nearest"}).eval()
    with pytest.raises(ImportFailed, match="whose rows or columns are open"):
        driver.import_torch(network, (x,), ({2: rows},))
