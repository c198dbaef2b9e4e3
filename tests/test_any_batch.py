"""Whole networks with an open batch: every number of rows against PyTorch in float64."""

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tvm_sparsewino import driver
from tvm_sparsewino.bench.profile_run import profile_network
from tvm_sparsewino.cli import main as cli
from tvm_sparsewino.errors import ConfigError, ImportFailed, ShapeError
from tvm_sparsewino.nn import models

ROWS = (1, 2, 3, 5, 7, 16)
OPEN = ({0: torch.export.Dim("rows")},)


class Net(nn.Module):
    """Convolutions with BatchNorm, a residual, pooling, a reshape and linear layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 24, 1)
        self.hidden = nn.Linear(24 * 2, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, image):
        x = torch.relu(self.norm(self.stem(image)))
        x = torch.relu(self.body(x) + x)
        x = nn.functional.max_pool2d(self.wide(x), 2)
        x = nn.functional.avg_pool2d(x, 2)
        scores = self.head(torch.relu(self.hidden(x.view(x.size(0), -1))))
        return scores.softmax(1), x


def network(density):
    random = torch.Generator().manual_seed(5)
    some = torch.randn((4, 3, 18, 14), generator=random)
    model = models.settle_statistics(models.seed_weights(Net()), some)
    return models.prune_at_once(model, density, some, density < 1), some


def compiled_for(mod, batches):
    return driver.compile(mod, "llvm", num_threads=1, batches=batches)


@pytest.fixture(scope="module")
def sparse():
    """Pruned, exported with a dimension that is open."""
    model, x = network(0.2)
    return model, compiled_for(driver.import_torch(model, (x[:2],), OPEN), (1, 4))


@pytest.fixture(scope="module")
def dense():
    """Exported with one row."""
    model, x = network(1.0)
    return model, compiled_for(driver.import_torch(model, (x[:1],)), [6, 2])


@pytest.fixture(scope="module")
def from_onnx(tmp_path_factory):
    """A file whose first dimension has a name."""
    model, x = network(0.2)
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    driver.export_onnx(model, (x[:2],), path, dynamic={"image": {0: "rows"}})
    return model, compiled_for(driver.import_onnx(path), (3, 1))


@pytest.fixture(params=["sparse", "dense", "from_onnx"])
def compiled(request):
    return request.getfixturevalue(request.param)


def image(rows):
    random = torch.Generator().manual_seed(rows)
    return torch.randn((rows, 3, 18, 14), generator=random)


def check(model, results, x):
    with torch.no_grad():
        wanted = copy.deepcopy(model).double().eval()(x.double())
    for result, reference in zip(results, wanted, strict=True):
        got, want = np.asarray(result), reference.numpy()
        assert got.shape == want.shape
        # float32, Winograd's rounding and sums in another order against float64
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("rows", ROWS)
def test_every_row_is_that_of_pytorch(compiled, rows):
    model, exe = compiled
    check(model, exe(image(rows).numpy()), image(rows))


def test_rows_do_not_depend_on_their_company(compiled):
    """Not even on the batch size they are computed with, rounding aside."""
    _, exe = compiled
    x = image(7).numpy()
    for all_rows, one in zip(exe(x), exe(x[4:5]), strict=True):
        assert np.abs(all_rows[4:5] - one).max() <= 1e-5 * np.abs(one).max()


def test_shapes_say_what_is_open(compiled):
    _, exe = compiled
    (info,), outputs = exe.inputs, exe.outputs
    assert info.any_batch and info.shape[1:] == (3, 18, 14)
    assert [output.shape for output in outputs] == [(info.shape[0], 5), (info.shape[0], 24, 2, 1)]
    for wrong in ((3, 18, 14), (2, 3, 18, 15), (2, 4, 18, 14), (0, 3, 18, 14)):
        with pytest.raises(ShapeError, match=r"image|at least one row"):
            exe(np.zeros(wrong, np.float32))
    with pytest.raises(ShapeError, match=r"expected float32 \[\w+, 3, 18, 14\], got float64"):
        exe(np.zeros((2, 3, 18, 14)))


def test_every_batch_size_has_its_plan(sparse):
    _, exe = sparse
    names = {"stem", "body", "wide", "hidden", "head"}
    assert exe.description.batches == (1, 4)
    for size, plan in exe.description.plans().items():
        assert {layer.name for layer in plan} == names
        assert {layer.conv.n for layer in plan if getattr(layer, "conv", None)} == {size}
        assert any(layer.algorithm.startswith("sparse") for layer in plan)
    assert len({layer.name for layer in exe.plan}) == 2 * len(names)


def test_sessions_take_any_batch(sparse):
    model, exe = sparse
    session = exe.session()
    for rows in (1, 4, 6):
        (memory,) = session.empty_inputs(rows)
        memory[...] = image(rows).numpy()
        check(model, map(np.from_dlpack, session(memory)), image(rows))


def test_a_size_is_profiled(sparse):
    _, exe = sparse
    for batch, rows in ((None, 1), (4, 4)):
        measured = profile_network(exe, 1, batch=batch)
        planned = {kernel.plan.name for kernel in measured.kernels if kernel.plan}
        assert {"stem", "body", "wide"} <= planned
        assert {k.output[0] for k in measured.kernels if k.plan} == {rows}
    with pytest.raises(ConfigError, match=r"kernels for batches \[1, 4\], not for 3"):
        profile_network(exe, 1, batch=3)


def test_files_keep_it_all(sparse, tmp_path, capsys):
    model, exe = sparse
    path = tmp_path / "net.so"
    exe.save(path)
    loaded = driver.load(path, 1)
    assert loaded.description == exe.description
    check(model, loaded(image(5).numpy()), image(5))
    np.savez(tmp_path / "in.npz", image=image(7).numpy())
    run = ["run", path, "-i", tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--threads", 1]
    assert cli.main([str(word) for word in run]) == 0
    assert "output_0: float32 [7, 5]" in capsys.readouterr().out
    with np.load(tmp_path / "out.npz") as outputs:
        check(model, [outputs["output_0"], outputs["output_1"]], image(7))
    assert cli.main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "any batch, put together from kernels for batches 1, 4" in text
    assert "layers, batch 1: " in text and "layers, batch 4: " in text
    assert "batch_1" not in text


def test_compiling_from_the_command_line(tmp_path, capsys):
    mod = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    program = torch.export.export(mod, (torch.randn(1, 3, 6, 6),))
    torch.export.save(program, tmp_path / "net.pt2")
    command = ["compile", tmp_path / "net.pt2", "-o", tmp_path / "net.so", "--target", "llvm"]
    command = [str(word) for word in command]
    assert cli.main([*command, "--threads", "1", "--batch", "1,2"]) == 0
    text = capsys.readouterr().out
    for size in (1, 2):
        assert f"1 of 1 layers run on our kernels, batch {size}\n" in text
    assert driver.load(tmp_path / "net.so", 1)(np.ones((3, 3, 6, 6), np.float32)).shape[0] == 3
    with pytest.raises(SystemExit):
        cli.main([*command, "--batch", "1,0"])
    assert "expected sizes such as 1,4,16, got '1,0'" in capsys.readouterr().err


class Meeting(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


def test_rows_that_meet_are_refused():
    mod = driver.import_torch(Meeting(), (torch.ones(2, 3),), OPEN)
    with pytest.raises(ShapeError, match=r"relax\.mean works along the batch"):
        driver.compile(mod, "llvm")
    static = driver.import_torch(Meeting(), (torch.ones(2, 3),))
    with pytest.raises(ShapeError, match=r"relax\.mean works along the batch"):
        driver.compile(static, "llvm", batches=(1, 2))


def test_sizes_that_are_none_are_refused():
    mod = driver.import_torch(nn.ReLU(), (torch.ones(2, 3),))
    with pytest.raises(ConfigError, match="batches must be different positive numbers"):
        driver.compile(mod, "llvm", batches=())
    scalar = driver.import_torch(nn.ReLU(), (torch.tensor(2.0),))
    with pytest.raises(ShapeError, match="without inputs that begin with a batch"):
        driver.compile(scalar, "llvm", batches=(1,))


# ---- ONNX --------------------------------------------------------------------------------------


def onnx_model(nodes, inputs, tensors=()):
    values = [onnx.helper.make_tensor_value_info(n, 1, list(s)) for n, s in inputs.items()]
    output = onnx.helper.make_tensor_value_info("y", 1, None)
    initializers = [onnx.numpy_helper.from_array(v, n) for n, v in dict(tensors).items()]
    graph = onnx.helper.make_graph(nodes, "net", values, [output], initializers)
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
    )


def node(kind, inputs, output="y", **attributes):
    return onnx.helper.make_node(kind, inputs.split(), [output], name=f"the_{kind}", **attributes)


def symbols(mod):
    shapes = [param.ty.shape.values for param in mod["main"].params]
    return [getattr(shape[0], "name", None) or int(shape[0]) for shape in shapes]


def test_the_first_dimension_is_a_batch():
    one = onnx_model([node("Relu", "x")], {"x": ["rows", 3]})
    assert symbols(driver.import_onnx(one)) == ["rows"]
    assert symbols(driver.import_onnx(one, {"x": (4, 3)})) == [4]
    unnamed = onnx_model([node("Relu", "x")], {"x": [None, 3]})
    assert symbols(driver.import_onnx(unnamed)) == ["batch"]
    all_open = onnx_model([node("Relu", "x")], {"x": ["n", 3, "h", "w"]})
    assert symbols(driver.import_onnx(all_open, {"x": ("images", 3, 5, 4)})) == ["images"]
    two = onnx_model([node("Add", "x z")], {"x": ["n", 3], "z": [1, 3]})
    assert symbols(driver.import_onnx(two)) == ["n", 1]


def test_shapes_computed_from_shapes_follow_the_batch():
    """What exporters make of ``x.view(x.size(0), -1)``."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "rows", axis=0),
        node("Concat", "rows rest", "wanted", axis=0),
        node("Reshape", "x wanted"),
    ]
    tensors = {"zero": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    mod = driver.import_onnx(onnx_model(nodes, {"x": ["n", 2, 3]}, tensors))
    exe = driver.compile(mod, "llvm", num_threads=1, batches=(2,))
    x = np.arange(30, dtype=np.float32).reshape(5, 2, 3)
    np.testing.assert_array_equal(exe(x), x.reshape(5, 6))


@pytest.mark.parametrize(
    ("made", "kind", "text"),
    [
        (
            onnx_model([node("Relu", "x")], {"x": ["n", 3, "h"]}),
            ShapeError,
            r"input 'x' has the shape \[n, 3, h\]; give every size",
        ),
        (
            onnx_model([node("Add", "x z")], {"x": ["n", 3], "z": ["m", 3]}),
            ShapeError,
            r"need not be one batch: \{'x': 'n', 'z': 'm'\}; give their shapes",
        ),
        (
            onnx_model([node("Add", "x z")], {"x": [None, 3], "z": [None, 3]}),
            ShapeError,
            r"need not be one batch: \{'x': '\?', 'z': '\?'\}",
        ),
        (
            onnx_model(
                [node("Size", "x", "size"), node("Cast", "size", "f", to=1), node("Div", "x f")],
                {"x": ["n", 3]},
            ),
            (ShapeError, ImportFailed),
            "the batch 'n' cannot stay open; give it a number",
        ),
        (
            onnx_model(
                [node("Shape", "x", "s"), node("Cast", "s", "f", to=1), node("Mul", "x f")],
                {"x": ["n", 2]},
            ),
            ShapeError,
            "the batch 'n' cannot stay open; give it a number: it computes with the number of rows",
        ),
        (
            onnx_model(
                [node("Reshape", "x s")], {"x": ["n", 4]}, {"s": np.array([2, -1], np.int64)}
            ),
            ShapeError,
            "the batch 'n' cannot stay open; give it a number: relax.reshape",
        ),
    ],
)
def test_batches_that_cannot_stay_open(made, kind, text):
    with pytest.raises(kind, match=text):
        driver.import_onnx(made)


@pytest.mark.parametrize("shape", [("n", "m"), (3, "n"), ("n", 0)])
def test_only_the_batch_has_a_name(shape):
    made = onnx_model([node("Relu", "x")], {"x": ["a", "b"]})
    with pytest.raises(ShapeError, match="positive numbers, or begins with a name for the batch"):
        driver.import_onnx(made, {"x": shape})


def test_a_name_for_a_number_is_refused():
    made = onnx_model([node("Relu", "x")], {"x": [2, 3]})
    with pytest.raises(ShapeError, match=r"has the shape \[2, 3\], got \('n', 3\)"):
        driver.import_onnx(made, {"x": ("n", 3)})
