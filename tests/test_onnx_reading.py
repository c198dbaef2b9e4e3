"""ONNX files that are read with distrust: what is refused, by which name; damaged files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model

from tvm_sparsewino import driver
from tvm_sparsewino.errors import ImportFailed, ShapeError
from tvm_sparsewino.onnx_io.loading import load_graph
from tvm_sparsewino.onnx_io.reading import SMALL, read

W = np.arange(4 * 3 * 3 * 3, dtype=np.float32).reshape(4, 3, 3, 3)


def network(shape=(1, 3, 8, 8), weight=W, **options):
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    return model([node], {"x": list(shape)}, {"y": None}, {"w": weight}, **options)


def refused(made, text, kind=ImportFailed, shapes=None):
    with pytest.raises(kind, match=text):
        load_graph(made, shapes)


def test_a_model_stays_as_it_is():
    made = network(shape=("n", 3, "h", "w"))
    before = made.SerializeToString()
    graph = load_graph(made, {"x": (1, 3, 5, 5)})
    assert made.SerializeToString() == before
    np.testing.assert_array_equal(graph.constants["w"], W)
    assert graph.inputs[0].shape == (1, 3, 5, 5)


def test_large_tensors_are_kept_apart():
    weight = np.zeros((64, 3, 3, 3), np.float32)
    small = read(network(weight=weight)).proto
    assert weight.size > SMALL
    assert not small.graph.initializer
    assert small.ByteSize() < 500


# ---- files -------------------------------------------------------------------------------------


def test_files_that_are_missing_or_something_else(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(ImportFailed, match=r"net\.onnx: there is no such file"):
        driver.import_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(ImportFailed, match=r"net\.onnx: not an ONNX model: it has no graph"):
        driver.import_onnx(path)
    path.write_text("hello, this is no protobuf")
    with pytest.raises(ImportFailed, match=r"net\.onnx: not an ONNX model, or a damaged one"):
        driver.import_onnx(path)
    with pytest.raises(ImportFailed, match="cannot be read: Is a directory"):
        driver.import_onnx(tmp_path)


def test_files_above_what_protobuf_can_hold_are_not_read(tmp_path):
    path = tmp_path / "net.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # takes no room on the disk
    with pytest.raises(ImportFailed, match="larger than 2 GiB"):
        driver.import_onnx(path)


def test_versions_that_cannot_be_read():
    newest = onnx.defs.onnx_opset_version()
    for opset in (8, newest + 1):
        refused(network(opset=opset), f"opset {opset} cannot be read, only 9 to {newest}")
    refused(network(ir=2), "IR version 2")
    made = network()
    del made.opset_import[:]
    refused(made, "opset none")


def test_graphs_that_onnx_itself_refuses():
    made = network()
    made.graph.node[0].input[1] = "nobody"
    refused(made, "not a valid ONNX model: Nodes in a graph must be topologically sorted")


@pytest.mark.parametrize(
    ("name", "text"), [(b"convolution", "a node b'.*' has names"), (b"map", "a value's name b'")]
)
def test_names_that_are_no_text(name, text, tmp_path):
    node = helper.make_node("Conv", ["map", "w"], ["y"], name="convolution")
    made = model([node], {"map": (1, 3, 8, 8)}, {"y": None}, {"w": W})
    if name == b"map":
        made.graph.node[0].input[0] = "w"
    damaged = made.SerializeToString().replace(name, b"\xe5" * len(name))
    (tmp_path / "net.onnx").write_bytes(damaged)
    with pytest.raises(ImportFailed, match=text):
        driver.import_onnx(tmp_path / "net.onnx")


def test_other_text_that_is_none(tmp_path):
    made = network()
    made.domain = "domain"
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString().replace(b"domain", b"\xe5" * 6))
    with pytest.raises(ImportFailed, match="names that are no text"):
        driver.import_onnx(tmp_path / "net.onnx")


# ---- tensors -----------------------------------------------------------------------------------


def with_tensor(**fields):
    made = network()
    tensor = made.graph.initializer[0]
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(tensor, name)[:]
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return made


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"raw_data": b"abc"}, r"tensor 'w': float32 \[4, 3, 3, 3\] needs 432 bytes, it has 3"),
        ({"dims": [10**9, 10**9]}, "needs 4000000000000000000 bytes"),
        ({"dims": [-1]}, "impossible"),
        ({"data_type": TensorProto.FLOAT16}, "is float16; float32, integers and bool"),
        ({"data_type": TensorProto.DOUBLE}, "is double"),
        ({"data_type": TensorProto.BFLOAT16}, "is bfloat16"),
        ({"data_type": TensorProto.STRING}, "is string"),
        ({"data_type": 77}, "is type 77"),
        ({"name": ""}, "has no name"),
    ],
)
def test_tensors_that_do_not_fit_their_bytes(fields, text):
    refused(with_tensor(**fields), text)


def test_two_tensors_of_one_name():
    made = network()
    made.graph.initializer.append(made.graph.initializer[0])
    refused(made, "tensor 'w' has no name, or that of another")


def test_values_in_typed_fields():
    made = network()
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].float_data.extend(W.reshape(-1))
    np.testing.assert_array_equal(load_graph(made).constants["w"], W)
    del made.graph.initializer[0].float_data[5:]
    refused(made, "needs 108 values, it has 5")
    made = model(
        [helper.make_node("Add", ["x", "w"], ["y"], name="add")],
        {"x": (1,)},
        {"y": (1,)},
    )
    made.graph.initializer.append(
        TensorProto(name="w", data_type=TensorProto.INT8, dims=[1], int32_data=[1000])
    )
    refused(made, "tensor 'w': a value does not fit int8")


def test_sparse_tensors_are_refused_by_name():
    made = network()
    sparse = made.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    refused(made, r"sparse tensors \['s'\]")


# ---- tensors in files of their own -------------------------------------------------------------


def external(tmp_path, **entries):
    """A model whose weights lie in net.onnx.data; its path."""
    (tmp_path / "sub").mkdir(exist_ok=True)
    path = tmp_path / "sub" / "net.onnx"
    (path.parent / "net.onnx.data").write_bytes(b"\0" * 16 + W.tobytes())
    (tmp_path / "secret").write_bytes(W.tobytes())
    made = network()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    given = {"location": "net.onnx.data", "offset": "16", "length": str(W.nbytes), **entries}
    for key, value in given.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(made.SerializeToString())
    return path


def test_tensors_in_files_of_their_own(tmp_path):
    path = external(tmp_path)
    np.testing.assert_array_equal(load_graph(path).constants["w"], W)
    refused(onnx.ModelProto.FromString(path.read_bytes()), "give the path of the model instead")


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"location": "../secret"}, "missing or outside of the folder"),
        ({"location": "gone"}, "missing or outside"),
        ({"location": ""}, "missing or outside"),
        ({"location": "link"}, "missing or outside"),
        ({"offset": "-4"}, "does not have them at -4"),
        ({"offset": "20"}, "does not have them at 20"),
        ({"length": "8"}, "needs 432 bytes"),
        ({"offset": "four"}, "cannot be understood"),
    ],
)
def test_tensors_outside_of_their_file_or_folder(tmp_path, entries, text):
    path = external(tmp_path, **entries)
    (path.parent / "link").symlink_to(tmp_path / "secret")
    refused(path, text)


# ---- shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (None, r"input 'x' has the shape \[n, 3, \?, w\]; .* as in x=1,3,224,224"),
        ({"data": (1, 3, 8, 8)}, r"given for \['data'\]; the inputs are \['x'\]"),
        ({"x": (1, 3, 8)}, "has 4 dimensions"),
        ({"x": (1, 4, 8, 8)}, r"has the shape \[n, 3, \?, w\], got \(1, 4, 8, 8\)"),
        ({"x": (0, 3, 8, 8)}, "positive numbers"),
    ],
)
def test_shapes_that_do_not_fit(shapes, text):
    refused(network(shape=("n", 3, None, "w")), text, ShapeError, shapes)


def test_an_input_without_any_shape():
    made = network()
    made.graph.input[0].type.tensor_type.ClearField("shape")
    refused(made, r"has the shape \[\.\.\.\]", ShapeError)
    assert load_graph(made, {"x": (2, 3, 4, 5)}).inputs[0].shape == (2, 3, 4, 5)


def test_symbols_hold_for_all_inputs():
    def made():
        node = helper.make_node("Add", ["x", "z"], ["y"], name="add")
        return model([node], {"x": ["n", 3], "z": ["n", 3]}, {"y": None})

    graph = load_graph(made(), {"x": (5, 3)})
    assert [i.shape for i in graph.inputs] == [(5, 3), (5, 3)]
    refused(made(), "'n' is 5 elsewhere, 4 in", ShapeError, {"x": (5, 3), "z": (4, 3)})


def test_inputs_of_other_types_are_refused_by_name():
    made = network()
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    refused(made, "input 'x' is float16")
    made.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1]))
    )
    refused(made, "input 'x': it is no tensor")


# ---- what is computed beforehand ---------------------------------------------------------------


def made_weight(nodes, **tensors):
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    return model([*nodes, conv], {"x": (1, 3, 8, 8)}, {"y": None}, tensors)


def test_weights_that_are_computed_become_constants():
    nodes = [
        helper.make_node("Transpose", ["raw"], ["t"], name="t", perm=[3, 2, 0, 1]),
        helper.make_node("Shape", ["t"], ["s"], name="s"),
        helper.make_node("ConstantOfShape", ["s"], ["two"], name="two", value=float_tensor(2)),
        helper.make_node("Mul", ["t", "two"], ["w"], name="mul"),
    ]
    graph = load_graph(made_weight(nodes, raw=W.transpose(2, 3, 1, 0)))
    assert [node.op_type for node in graph.nodes] == ["Conv"]
    np.testing.assert_array_equal(graph.constants["w"], 2 * W)


def float_tensor(number):
    return helper.make_tensor("value", TensorProto.FLOAT, [1], [number])


BIG = np.array([2**20, 2**20])


@pytest.mark.parametrize(
    ("node", "tensors"),
    [
        (("ConstantOfShape", ["big"]), {"big": BIG}),
        (("Expand", ["a", "big"]), {"a": np.ones(1, np.float32), "big": BIG}),
        (("Tile", ["a", "big"]), {"a": np.ones((1, 1), np.float32), "big": BIG}),
        (("Range", ["p", "q", "o"]), {"p": np.array(0), "q": np.array(2**40), "o": np.array(1)}),
        (("Gather", ["a", "i"]), {"a": np.ones((1, 2**15)), "i": np.zeros(2**15, np.int64)}),
        (("Add", ["a", "b"]), {"a": np.ones((2**15, 1)), "b": np.ones((1, 2**15))}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_constants_of_any_size_are_not_made(node, tensors):
    operator, inputs = node
    tensors = {
        name: array.astype(np.float32) if array.dtype == np.float64 else array
        for name, array in tensors.items()
    }
    nodes = [helper.make_node(operator, inputs, ["w"], name="fill")]
    refused(made_weight(nodes, **tensors), r"node 'fill' \(\w+\) would make a constant of \d{9,}")


def test_constants_that_cannot_be_computed_are_named():
    nodes = [helper.make_node("Add", ["a", "b"], ["w"], name="sum")]
    tensors = {"a": np.ones(3, np.float32), "b": np.ones(4, np.float32)}
    refused(made_weight(nodes, **tensors), r"node 'sum' \(Add\) cannot be computed")


def test_constants_of_other_types_are_refused_by_name():
    nodes = [helper.make_node("Cast", ["a"], ["w"], name="half", to=TensorProto.FLOAT16)]
    refused(made_weight(nodes, a=W), r"node 'half' \(Cast\) is float16")


# ---- damaged files -----------------------------------------------------------------------------


def test_damaged_files_give_one_clear_error():
    """A short run; tests/fuzz_inputs.py says how to do a long one."""
    program = Path(__file__).with_name("fuzz_inputs.py")
    result = subprocess.run(
        [sys.executable, program, "--count", "250", "--seed", "7"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    read, refused = (int(word) for word in result.stdout.replace(",", "").split()[1::2])
    assert read > 0
    assert refused > read
