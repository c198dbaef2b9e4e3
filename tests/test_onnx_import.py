"""ONNX networks in TVM: function, names, opsets, refusals, models of others."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import model, relative_error, run_ort
from torch import nn
from torch.nn.utils import prune

from tvm_sparsewino import driver
from tvm_sparsewino.cli import main as cli
from tvm_sparsewino.config import CompileConfig
from tvm_sparsewino.errors import ImportFailed
from tvm_sparsewino.relay_passes import plan
from tvm_sparsewino.relay_passes.bindings import Bindings
from tvm_sparsewino.relay_passes.patterns import LAYER_NAMES

NEWEST = onnx.defs.onnx_opset_version()


def compiled(source, shapes=None, **options):
    return driver.compile(driver.import_onnx(source, shapes), "llvm", num_threads=1, **options)


# ---- operators in every opset ------------------------------------------------------------------


def by_opset(opset):
    """A network of the operators that changed their form since opset 11, in the form of one."""

    def reshaped(name, axes, source, target):
        if opset < 13:
            return helper.make_node(name, [source], [target], name=target, axes=[axes])
        return helper.make_node(name, [source, f"axis_{axes}"], [target], name=target)

    mean = {"axes": [2, 3]} if opset < 18 else {}
    split = {"num_outputs": 2} if opset >= 18 else {}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", *("s", "o", "m", "v")], ["n"], name="norm"),
        helper.make_node("Clip", ["n", "zero", "six"], ["r6"], name="clip"),
        helper.make_node("PRelu", ["r6", "slope"], ["pr"], name="prelu"),
        helper.make_node(
            "MaxPool", ["pr"], ["mp"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node(
            "AveragePool", ["mp"], ["ap"], name="average", kernel_shape=[3, 3], pads=[1] * 4
        ),
        helper.make_node("Resize", ["ap", "roi", "scales"], ["up"], name="resize", mode="nearest"),
        helper.make_node("Pad", ["up", "pads"], ["padded"], name="pad"),
        helper.make_node("Split", ["padded"], ["left", "right"], name="split", axis=1, **split),
        helper.make_node("Concat", ["right", "left"], ["cat"], name="concat", axis=1),
        helper.make_node("DepthToSpace", ["cat"], ["wide"], name="shuffle", blocksize=2),
        helper.make_node(
            "ReduceMean",
            ["wide", *(["last"] if opset >= 18 else [])],
            ["mean"],
            name="mean",
            **mean,
        ),
        reshaped("Squeeze", 2, "mean", "sq"),
        reshaped("Unsqueeze", 2, "sq", "un"),
        helper.make_node("Flatten", ["un"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "g", "h"], ["fc"], name="fc", transB=1),
        helper.make_node("Dropout", ["fc"], ["drop"], name="drop"),
        helper.make_node("Softmax", ["drop"], ["y"], name="softmax", axis=1),
    ]
    rng = np.random.default_rng(1)

    def array(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    tensors = {
        "w": array(8, 3, 3, 3),
        "b": array(8),
        **{name: array(8) for name in "som"},
        "v": np.abs(array(8)) + 0.5,
        "zero": np.float32(0),
        "six": np.float32(6),
        "slope": array(8, 1, 1),
        "roi": np.array([], np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
        "axis_2": np.array([2]),
        "last": np.array([2, 3]),
        "g": array(5, 2),
        "h": array(5),
    }
    used = {name for node in nodes for name in node.input}
    tensors = {name: value for name, value in tensors.items() if name in used}
    ir = {11: 6, 12: 7, 13: 7, 14: 7}.get(opset, 8)
    return model(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 5]}, tensors, opset=opset, ir=ir)


@pytest.mark.parametrize("opset", range(11, NEWEST + 1))
def test_operators_of_every_opset(opset, rng):
    made = by_opset(opset)
    onnx.checker.check_model(made)
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    mod = driver.import_onnx(made, {"x": x.shape})
    if opset not in (11, 13, 18, NEWEST):  # where forms change; the others give the same module
        assert [p.name for p in plan(mod, "llvm")][:-1] == ["conv"]  # then the linear layer
        return
    exe = driver.compile(mod, "llvm", num_threads=1)
    assert [p.algorithm for p in exe.plan] != ["left"]
    # ONNX's reference is the only one that knows the newest, and wrong about DepthToSpace in 13.
    newest = opset == NEWEST
    want = ReferenceEvaluator(made).run(None, {"x": x})[0] if newest else run_ort(made, x)
    assert relative_error(exe(x), want) < 1e-5  # float32, another order of sums


# ---- form --------------------------------------------------------------------------------------


def layer(name, source, target, weight):
    return helper.make_node("Conv", [source, weight], [target], name=name, pads=[1] * 4)


def test_names_of_inputs_and_layers(rng):
    w = rng.standard_normal((3, 3, 3, 3)).astype(np.float32)
    nodes = [
        layer("node_conv2d", "input.1", "a", "stem.0.weight"),
        layer("middle", "a", "b", "w"),
        layer("", "b", "c", "w"),
        layer("node_again", "c", "y", "stem.0.weight"),
    ]
    made = model(
        nodes, {"input.1": (1, 3, 5, 5)}, {"y": (1, 3, 5, 5)}, {"stem.0.weight": w, "w": w}
    )
    mod = driver.import_onnx(made)
    assert [p.name for p in mod["main"].params] == ["input.1"]
    assert [p.name for p in plan(mod, "llvm")] == ["stem.0", "middle", "c", "stem.0:2"]
    assert set(mod["main"].attrs[LAYER_NAMES].values()) == {"stem.0", "middle", "c"}


def test_several_outputs_of_several_types(rng):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Shape", ["r"], ["s"], name="shape"),
        helper.make_node("ArgMax", ["r"], ["best"], name="best", axis=1, keepdims=0),
    ]
    made = model(nodes, {"x": (2, 3)}, {"r": (2, 3)})
    made.graph.output.append(helper.make_tensor_value_info("s", TensorProto.INT64, [2]))
    made.graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, [2]))
    x = rng.standard_normal((2, 3)).astype(np.float32)
    relu, shape, best = compiled(made)(x)
    np.testing.assert_array_equal(relu, np.maximum(x, 0))
    np.testing.assert_array_equal(shape, [2, 3])
    np.testing.assert_array_equal(best, np.maximum(x, 0).argmax(1))
    assert shape.dtype == best.dtype == np.int64


@pytest.mark.parametrize("bounds", [(0, 6), (None, 1), (-1, None), ("given", 6)])
def test_clip(bounds, rng):
    names, tensors = [], {}
    for name, bound in zip(("low", "high"), bounds, strict=True):
        names.append("" if bound is None else name)
        if isinstance(bound, int):
            tensors[name] = np.float32(bound)
    inputs = {"x": (2, 3), **({"low": ()} if bounds[0] == "given" else {})}
    made = model(
        [helper.make_node("Clip", ["x", *names], ["y"], name="clip")],
        inputs,
        {"y": (2, 3)},
        tensors,
    )
    x = 4 * rng.standard_normal((2, 3)).astype(np.float32)
    low = np.array(-2, np.float32)
    arrays = [x, low] if bounds[0] == "given" else [x]
    got = compiled(made)(*arrays)
    np.testing.assert_array_equal(got, run_ort(made, *arrays))


@pytest.mark.parametrize("slope", [(3, 1, 1), (1, 3, 1, 1), (1,), (5,), (3, 4, 5), (2, 3, 4, 5)])
def test_prelu(slope, rng):
    x, s = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 4, 5), slope))
    node = helper.make_node("PRelu", ["x", "s"], ["y"], name="prelu")
    made = model([node], {"x": x.shape}, {"y": x.shape}, {"s": s})
    np.testing.assert_array_equal(compiled(made)(x), run_ort(made, x))


@pytest.mark.parametrize("operator", ["Sum", "Max", "Min"])
@pytest.mark.parametrize("shapes", [[(2, 3)], [(2, 3), (2, 3)], [(3,), (2, 1), (1, 1, 3)]])
def test_operators_of_several_operands(operator, shapes, rng):
    arrays = {f"x{i}": rng.standard_normal(s).astype(np.float32) for i, s in enumerate(shapes)}
    node = helper.make_node(operator, list(arrays), ["y"], name="several")
    made = model([node], {name: a.shape for name, a in arrays.items()}, {"y": None})
    mod = driver.import_onnx(made)
    assert "stack" not in str(mod)
    exe = driver.compile(mod, "llvm", num_threads=1)
    np.testing.assert_allclose(exe(*arrays.values()), run_ort(made, *arrays.values()), rtol=1e-6)


# ---- refusals ----------------------------------------------------------------------------------


def test_unsupported_operators_are_listed_together_with_their_nodes():
    nodes = [
        helper.make_node("DeformConv", ["x", "w", "x"], ["a"], name="bend"),
        helper.make_node("Det", ["a"], ["b"], name="first"),
        helper.make_node("Det", ["b"], ["c"], name="second"),
        helper.make_node("FusedConv", ["c", "w"], ["y"], name="fused", domain="com.microsoft"),
        helper.make_node("QuantizeLinear", ["y", "s"], ["q"], name="int8"),
    ]
    tensors = {"w": np.ones((3, 3, 1, 1), np.float32), "s": np.float32(1)}
    made = model(nodes, {"x": (1, 3, 5, 5)}, {"q": None}, tensors, 22, domains=["com.microsoft"])
    with pytest.raises(ImportFailed, match="cannot be imported") as error:
        driver.import_onnx(made)
    for text in (
        "DeformConv (bend)",
        "Det (first, second)",
        "com.microsoft::FusedConv (fused)",
        "QuantizeLinear (int8)",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (("Reshape", {}), r"node 'bad' \(Reshape\): cannot be imported"),
        (("BatchNormalization", {"training_mode": 1}), "training mode; export the network"),
    ],
)
def test_operators_that_do_not_fit_are_named(node, text, capfd):
    operator, attributes = node
    channels = ["one"] * 4 if operator == "BatchNormalization" else ["seven"]
    nodes = [helper.make_node(operator, ["x", *channels], ["y"], name="bad", **attributes)]
    tensors = {"one": np.ones(3, np.float32)} if len(channels) > 1 else {"seven": np.array([7, 7])}
    with pytest.raises(ImportFailed, match=text):
        driver.import_onnx(model(nodes, {"x": (1, 3, 5, 5)}, {"y": None}, tensors))
    assert capfd.readouterr() == ("", "")  # TVM prints the operands and complains of the builder


def test_outputs_that_there_are_not():
    nodes = [helper.make_node("MaxPool", ["x"], ["y", "where"], name="pool", kernel_shape=[2, 2])]
    with pytest.raises(ImportFailed, match=r"node 'pool' .*has 2 outputs, 1 are supported"):
        driver.import_onnx(model(nodes, {"x": (1, 3, 4, 4)}, {"y": None, "where": None}))


# ---- models of others --------------------------------------------------------------------------


class Pruned(nn.Module):
    """Convolutions pruned by PyTorch itself: unstructured and whole filters."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1)),
        )

    def forward(self, x):
        return self.body(x)


def test_a_network_pruned_by_pytorch(tmp_path, rng):
    torch.manual_seed(0)
    net = Pruned().eval()
    prune.l1_unstructured(net.body[0], "weight", 0.8)
    prune.ln_structured(net.body[3], "weight", 0.5, n=2, dim=0)
    for conv in (net.body[0], net.body[3]):
        prune.remove(conv, "weight")
    x = rng.standard_normal((1, 3, 12, 12)).astype(np.float32)
    path = tmp_path / "pruned.onnx"
    driver.export_onnx(net, (torch.from_numpy(x),), path)
    exe = compiled(path, config=CompileConfig(winograd_for_dense=False))
    with torch.no_grad():
        want = net(torch.from_numpy(x)).numpy()
    assert relative_error(exe(x), want) < 1e-5  # float32, another order of sums
    assert [p.name for p in exe.plan] == ["body.0", "body.3", "body.5"]
    # The exporter may fold BatchNorm, which keeps zeros; nothing else changes the weights.
    constants = weights(driver.import_onnx(path))
    zeros = [float((w == 0).mean()) for w in constants]
    assert zeros[0] == pytest.approx(0.8, abs=0.01)
    assert zeros[1] == 0.5


def weights(mod):
    """Weights of the convolutions of a module."""
    bindings = Bindings(mod["main"])
    calls = [b.value for b in bindings.order if "conv2d" in getattr(b.value, "op", b).__repr__()]
    return [bindings.constant(call.args[1]) for call in calls]


# ---- command line ------------------------------------------------------------------------------


def test_compile_with_shapes(tmp_path, rng, capsys):
    w = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    made = model([layer("conv", "x", "y", "w")], {"x": ["n", 3, "h", "h"]}, {"y": None}, {"w": w})
    path, out = tmp_path / "net.onnx", tmp_path / "net.so"
    path.write_bytes(made.SerializeToString())
    command = ["compile", str(path), "-o", str(out)]
    assert cli.main([*command, "--shape", "x=2,3,9,9"]) == 0
    assert [info.shape for info in driver.load(out).inputs] == [(2, 3, 9, 9)]
    assert cli.main(command) == 4
    assert "input 'x' has the shape [n, 3, h, h]" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*command, "--shape", "x=2,3,a"])
    assert "expected NAME=N,C,H,W" in capsys.readouterr().err
    assert cli.main(["compile", "net.pt2", "-o", str(out), "--shape", "x=1,3,9,9"]) == 4
    assert "--shape is for .onnx files" in capsys.readouterr().err


def test_linear_layers_keep_their_names(rng):
    shapes = {"first.weight": (4, 3), "bias": (4,), "second": (4, 2)}
    tensors = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "first.weight", "bias"], ["a"], name="first", transB=1),
        helper.make_node("MatMul", ["a", "second"], ["y"], name="second"),
    ]
    mod = driver.import_onnx(model(nodes, {"x": (5, 3)}, {"y": None}, tensors))
    assert [p.name for p in plan(mod, "llvm")] == ["first", "second"]
