"""Small ONNX models, and how to run them elsewhere, shared by the tests of ONNX in and out."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvm_sparsewino.onnx_io.body import function
from tvm_sparsewino.onnx_io.operator import DOMAIN, OP_TYPE, attributes, read_spec

OPSET = 18
IR = 10  # the first with overloads
TOLERANCE = 1e-4  # of the output's maximum: float32, Winograd against direct sums


def tensor(name, array):
    return numpy_helper.from_array(np.ascontiguousarray(array), name)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, tensors=(), opset=OPSET, ir=IR, functions=(), domains=()):
    """A model of nodes; inputs and outputs are name -> shape, tensors name -> array."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [value(*item) for item in inputs.items()],
        [value(*item) for item in outputs.items()],
        [tensor(*item) for item in dict(tensors).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, functions=list(functions))


def winograd_node(m, r, padding=(1, 1, 1, 1), groups=1, bias=True, name="conv", changed=None):
    """A node of our operator from "x", "u" and "b" to "y"."""
    given = {**attributes(m, r, padding, groups), **(changed or {})}
    inputs = ["x", "u", "b"] if bias else ["x", "u"]
    return helper.make_node(OP_TYPE, inputs, ["y"], name=name, domain=DOMAIN, **given)


def winograd_model(rng, m, r, padding, groups, bias, c=4, k=6, sizes=("n", 4, "h", "w")):
    """A model of one node with its function, and the coefficients and bias."""
    node = winograd_node(m, r, padding, groups, bias)
    u = rng.standard_normal(((m + r - 1) ** 2, k, c // groups)).astype(np.float32)
    tensors = {"u": u}
    if bias:
        tensors["b"] = rng.standard_normal(k).astype(np.float32)
    spec = read_spec(node)
    node.overload = spec.overload
    made = model(
        [node],
        {"x": list(sizes)},
        {"y": ["n", k, "oh", "ow"]},
        tensors,
        functions=[function(spec, OPSET)],
        domains=[DOMAIN],
    )
    onnx.checker.check_model(made, full_check=True)
    return made, u, tensors.get("b")


def run_ort(source, *arrays):
    """What ONNX Runtime computes for a file or a model: its first output."""
    return run_ort_all(source, *arrays)[0]


def run_ort_all(source, *arrays):
    """What ONNX Runtime computes for a file or a model: every output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = source.SerializeToString() if isinstance(source, onnx.ModelProto) else str(source)
    session = onnxruntime.InferenceSession(data, options)
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def run_openvino(source, *arrays):
    """What OpenVINO computes in float32."""
    import openvino

    core = openvino.Core()
    data = source.SerializeToString() if isinstance(source, onnx.ModelProto) else str(source)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(data), "CPU", settings)
    return compiled(arrays)[0]


def relative_error(got, want):
    """Largest difference over the largest value."""
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())
