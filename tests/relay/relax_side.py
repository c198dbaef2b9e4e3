"""Networks for the tests of the Relay line, made and run by Relax: ``relax_side.py FOLDER``.

For every network: ``NAME.onnx``, ``NAME.npz`` with the input and the outputs of this package and
of ONNX Runtime, ``NAME.json`` with the plan. ``weights.safetensors`` holds the Winograd layers of
"named", whose unpruned form is "plain".
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

import tvm_sparsewino as sw
from tvm_sparsewino.nn import convert
from tvm_sparsewino.weights import LayerWeights, save_weights


class Net(torch.nn.Module):
    """Bias, BatchNorm, residual, PReLU, another filter, a stride."""

    def __init__(self, normalised=True):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.body = torch.nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(16) if normalised else torch.nn.Identity()
        self.slope = torch.nn.PReLU(16)
        self.wide = torch.nn.Conv2d(16, 8, 5, padding=2)
        self.last = torch.nn.Conv2d(8, 4, 3, stride=2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        y = torch.relu(self.norm(self.body(x)) + x)
        return self.last(torch.nn.functional.leaky_relu(self.wide(self.slope(y)), 0.1))


def pruned(model, share=0.9):
    """``model`` converted, with a random share of the coefficients of wide layers zero."""
    model = convert(model, tile=2).eval()
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "winograd_weight") and layer.weight.shape[2] > 3:
                layer.weight *= torch.rand_like(layer.weight) >= share
    return model


def layer_weights(model):
    """The Winograd layers of ``model`` as they are kept on disk."""
    for name, layer in model.named_modules():
        if hasattr(layer, "winograd_weight"):
            u = layer.winograd_weight.detach().numpy()
            bias = None if layer.bias is None else layer.bias.detach().numpy()
            yield LayerWeights.winograd(name, layer.m, layer.r, np.ascontiguousarray(u), bias)


def network(normalised=True):
    torch.manual_seed(0)
    model = Net(normalised).eval()
    with torch.no_grad():
        model.slope.weight.uniform_(0, 0.5)
        if normalised:
            model.norm.running_mean.normal_()
            model.norm.running_var.uniform_(0.5, 2)
    return model


def classifier(rng):
    """A pruned classifier as plain ONNX: every kind of convolution that one has."""
    made, nodes = {}, []

    def weight(name, *shape, density=1.0):
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) * density)
        made[name] = np.where(rng.random(shape) < density, values, 0).astype(np.float32)
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(x, name, k, c, r, *, density=1.0, pad=1, bias=True, groups=1, **attributes):
        inputs = [x, weight(f"{name}.weight", k, c // groups, r, r, density=density)]
        inputs += [weight(f"{name}.bias", k)] if bias else []
        return node("Conv", inputs, name, pads=[pad] * 4, group=groups, **attributes)

    x = node("Relu", [conv("x", "stem", 32, 3, 3, strides=[2, 2])], "stem_relu")
    y = conv(x, "block.conv1", 32, 32, 3, density=0.1, bias=False)
    scale = [weight(f"norm.{n}", 32) for n in ("gamma", "beta", "mean")]
    made["norm.variance"] = rng.uniform(0.5, 2, 32).astype(np.float32)
    y = node("BatchNormalization", [y, *scale, "norm.variance"], "norm")
    y = node("Relu", [y], "block_relu")
    y = conv(y, "block.conv2", 32, 32, 3, density=0.1)
    x = node("Relu", [node("Add", [y, x], "sum")], "sum_relu")
    x = node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = conv(x, "depthwise", 32, 32, 3, groups=32)
    made["low"], made["high"] = np.float32(0), np.float32(6)
    x = node("Clip", [x, "low", "high"], "relu6")
    x = node("Relu", [conv(x, "pointwise", 48, 32, 1, density=0.2, pad=0)], "pointwise_relu")
    x = conv(x, "dilated", 48, 48, 3, density=0.1, pad=2, dilations=[2, 2], groups=2)
    x = conv(x, "strided", 64, 48, 3, density=0.15, strides=[2, 2])
    x = node("Flatten", [node("GlobalAveragePool", [x], "average")], "flat")
    node("Gemm", [x, weight("fc.weight", 10, 64), weight("fc.bias", 10)], "y", transB=1)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "classifier",
        [value("x", TensorProto.FLOAT, [1, 3, 40, 40])],
        [value("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in made.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def record(folder, name, x):
    """Run a network here and in ONNX Runtime, and keep what came out."""
    path = folder / f"{name}.onnx"
    exe = sw.compile(sw.import_onnx(path), num_threads=1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    theirs = session.run(None, {given: x})[0]
    np.savez(folder / f"{name}.npz", **{given: x})
    np.savez(folder / f"{name}_outputs.npz", relax=np.asarray(exe(x)), onnxruntime=theirs)
    plan = [layer.to_json() for layer in exe.plan]
    (folder / f"{name}.json").write_text(json.dumps(plan))


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = {"classifier": (1, 3, 40, 40)}
    onnx.save(classifier(rng), folder / "classifier.onnx")
    example = (torch.rand(2, 3, 21, 26),)
    winograd, plain = pruned(network()), network(normalised=False)
    named = pruned(plain)
    save_weights(folder / "weights.safetensors", layer_weights(named))
    sw.export_onnx(winograd, example, folder / "winograd.onnx")
    sw.export_onnx(winograd, example, folder / "inlined.onnx", inline=True)
    sw.export_onnx(plain, example, folder / "plain.onnx")
    sw.export_onnx(named, example, folder / "named.onnx")
    images.update(dict.fromkeys(("winograd", "inlined", "plain", "named"), example[0].shape))
    inputs = {tuple(shape): rng.random(shape, np.float32) for shape in images.values()}
    for name, shape in images.items():
        record(folder, name, inputs[tuple(shape)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
