"""Our operator in standard operators: right in other runtimes for any size, found again by us."""

import numpy as np
import onnx
import pytest
from onnx import helper, inliner, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import (
    TOLERANCE,
    model,
    relative_error,
    run_openvino,
    run_ort,
    winograd_model,
    winograd_node,
)

from tvm_sparsewino import driver
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ImportFailed, ShapeError
from tvm_sparsewino.onnx_io import functions, operator
from tvm_sparsewino.onnx_io.metadata import describe, inlined_layers
from tvm_sparsewino.onnx_io.recognise import fold_bodies
from tvm_sparsewino.reference import winograd_conv2d
from tvm_sparsewino.relay_passes import plan

# m, r, padding, groups, bias
SPECS = [
    (2, 3, (1, 1, 1, 1), 1, True),
    (4, 3, (0, 1, 2, 0), 2, False),
    (6, 3, (1, 1, 1, 1), 1, False),
    (4, 5, (2, 2, 2, 2), 2, True),
    (1, 3, (0, 0, 0, 0), 1, True),
    (3, 1, (0, 0, 0, 0), 1, True),
]
# One size below, at and above the tile, one row, several images.
SIZES = [(1, 4, 5, 6), (2, 4, 7, 4), (1, 4, 8, 13), (3, 4, 5, 5)]


def want(x, u, bias, spec):
    m, r, padding, groups, _ = spec
    return winograd_conv2d(x, u, cook_toom(m, r), bias, padding, groups)


def maps(rng):
    return [rng.standard_normal(size).astype(np.float32) for size in SIZES]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_runtimes_compute_the_convolution_at_any_size(spec, rng):
    made, u, bias = winograd_model(rng, *spec)
    for x in maps(rng):
        assert relative_error(run_ort(made, x), want(x, u, bias, spec)) < TOLERANCE


@pytest.mark.parametrize("spec", SPECS[:2], ids=str)
def test_openvino_takes_the_inlined_form(spec, rng):
    pytest.importorskip("openvino", reason="openvino is not installed")
    made, u, bias = winograd_model(rng, *spec)
    plain = inlined_form(made)
    for x in maps(rng)[:2]:
        assert relative_error(run_openvino(plain, x), want(x, u, bias, spec)) < TOLERANCE


def inlined_form(made):
    """The model with our own inlining."""
    node = made.graph.node[0]
    result = onnx.ModelProto()
    result.CopyFrom(made)
    del result.graph.node[:]
    del result.functions[:]
    result.graph.node.extend(functions.inlined(node, operator.read_spec(node)))
    return result


def by_onnx(made):
    return inliner.inline_local_functions(made)


@pytest.mark.parametrize("inline", [inlined_form, by_onnx])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_inlined_bodies_are_found_again(spec, inline, rng):
    made, _, _ = winograd_model(rng, *spec)
    plain = inline(made)
    constants = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    assert fold_bodies(plain.graph, constants) == []
    (node,) = plain.graph.node
    wanted = operator.read_spec(made.graph.node[0])
    assert operator.is_winograd(node)
    assert operator.read_spec(node) == wanted
    assert list(node.input) == list(made.graph.node[0].input)
    assert list(node.output) == ["y"]


def test_what_is_behind_and_before_stays(rng):
    made, u, bias = winograd_model(rng, *SPECS[0])
    plain = by_onnx(made)
    relu = helper.make_node("Relu", ["y"], ["z"], name="relu")
    plain.graph.node.append(relu)
    plain.graph.output[0].name = "z"
    constants = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    fold_bodies(plain.graph, constants)
    assert [n.op_type for n in plain.graph.node] == ["WinogradConv2d", "Relu"]
    x = maps(rng)[0]
    exe = driver.compile(driver.import_onnx(plain, {"x": x.shape}), "llvm", num_threads=1)
    assert relative_error(exe(x), np.maximum(want(x, u, bias, SPECS[0]), 0)) < TOLERANCE


def change_filter(graph):
    node = next(n for n in graph.node if n.output[0].endswith("input_filters"))
    array = numpy_helper.to_array(node.attribute[0].t).copy()
    array[0, 0, 0, 0] += 1
    node.attribute[0].t.CopyFrom(numpy_helper.from_array(array))


def change_output_filter(graph):
    node = next(n for n in graph.node if n.output[0].endswith("output_filters"))
    array = numpy_helper.to_array(node.attribute[0].t) * 2
    node.attribute[0].t.CopyFrom(numpy_helper.from_array(array))


def change_crop(graph):
    node = next(n for n in graph.node if n.output[0].endswith("starts"))
    node.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array([0, 1])))


def change_order(graph):
    node = next(n for n in graph.node if n.op_type == "Transpose")
    node.attribute[0].ints[1:3] = [2, 1]


def change_wiring(graph):
    node = next(n for n in graph.node if n.op_type == "MatMul")
    node.input[1], node.input[0] = node.input[0], node.input[1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_filter, []),  # then it is no transform of ours at all
        (change_output_filter, ["conv"]),
        (change_crop, ["conv"]),
        (change_order, ["conv"]),
        (change_wiring, ["conv"]),
    ],
)
def test_bodies_that_differ_are_left_and_told(change, told, rng):
    made, _, _ = winograd_model(rng, *SPECS[0])
    plain = inlined_form(made)
    change(plain.graph)
    before = [n.SerializeToString() for n in plain.graph.node]
    constants = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    assert fold_bodies(plain.graph, constants) == told
    assert [n.SerializeToString() for n in plain.graph.node] == before


def test_a_value_that_is_used_elsewhere_is_kept(rng):
    made, _, _ = winograd_model(rng, *SPECS[0])
    plain = inlined_form(made)
    plain.graph.output.append(helper.make_tensor_value_info("conv/tiles", 1, None))
    constants = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    fold_bodies(plain.graph, constants)
    kinds = [n.op_type for n in plain.graph.node]
    assert kinds.count("Conv") == 1
    assert kinds.count("ConvTranspose") == 0
    assert kinds[-1] == "WinogradConv2d"


@pytest.mark.parametrize("form", ["function", "inlined"])
def test_the_importer_keeps_the_meaning(form, rng):
    spec = SPECS[3]
    made, u, bias = winograd_model(rng, *spec)
    x = maps(rng)[1]
    mod = driver.import_onnx(made if form == "function" else by_onnx(made), {"x": x.shape})
    (layer,) = plan(mod, "llvm")
    assert (layer.m, layer.conv.r, layer.conv.groups) == (4, 5, 2)
    assert "Winograd coefficients" in layer.reason
    exe = driver.compile(mod, "llvm", num_threads=1)
    assert relative_error(exe(x), want(x, u, bias, spec)) < TOLERANCE


def test_other_points_than_ours_run_as_the_function_says(rng):
    """They are right, without kernels of ours; the body in standard operators runs."""
    points = ("0", "1", "-1", "3", "inf")
    node = winograd_node(3, 3, bias=False, changed={"points": list(points)})
    u = rng.standard_normal((25, 2, 4)).astype(np.float32)
    node.overload = operator.read_spec(node).overload
    made = model(
        [node],
        {"x": [1, 4, 7, 7]},
        {"y": [1, 2, 7, 7]},
        {"u": u},
        functions=[functions.function(operator.read_spec(node), 18)],
        domains=[operator.DOMAIN],
    )
    x = rng.standard_normal((1, 4, 7, 7)).astype(np.float32)
    mod = driver.import_onnx(made)
    (layer,) = plan(mod, "llvm")
    assert layer.algorithm == "left"
    assert "points of its own" in layer.reason
    got = run_ort(made, x)
    algorithm = operator.read_spec(node).algorithm
    assert relative_error(got, winograd_conv2d(x, u, algorithm, None, (1, 1, 1, 1), 1)) < TOLERANCE


# ---- attributes --------------------------------------------------------------------------------


def remove(node, name):
    node.attribute.remove(next(a for a in node.attribute if a.name == name))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"version": 2}, "version 2 cannot be read, only 1"),
        ({"m": 0}, r"F\(0,3\) must have"),
        ({"m": 31}, "<= 32"),
        ({"padding": [1, 1]}, "padding must be 4 numbers in 0..2"),
        ({"padding": [1, 1, 3, 1]}, "padding must be 4 numbers"),
        ({"groups": 0}, "0 groups"),
        ({"points": ["0", "inf"]}, "needs 3 finite points"),
        ({"points": ["a", "inf"]}, "must be fractions"),
        ({"m": 2.0}, r"\['m'\] are missing, unknown or of another type"),
        ({"stride": 2}, r"\['stride'\] are missing"),
    ],
)
def test_attributes_that_make_no_convolution_are_refused(changed, text):
    with pytest.raises(ImportFailed, match=text):
        operator.read_spec(winograd_node(2, 3, changed=changed))


def test_missing_attributes_and_operands_are_refused(rng):
    node = winograd_node(2, 3)
    remove(node, "points")
    with pytest.raises(ImportFailed, match=r"\['points'\] are missing"):
        operator.read_spec(node)
    node = winograd_node(2, 3)
    del node.input[1:]
    with pytest.raises(ImportFailed, match="1 inputs and 1 groups"):
        operator.read_spec(node)
    made, _, _ = winograd_model(rng, *SPECS[0])
    made.opset_import[0].version = 14
    del made.functions[:]
    with pytest.raises(ImportFailed, match="node 'conv': our operator needs opset 15, this is 14"):
        driver.import_onnx(made, {"x": (1, 4, 5, 5)})


def test_coefficients_of_another_shape_are_refused_by_node(rng):
    made, _, _ = winograd_model(rng, *SPECS[0])
    made.graph.node[0].CopyFrom(winograd_node(4, 3))
    with pytest.raises(ShapeError, match=r"node 'conv' \(WinogradConv2d\): .*needs weights \[36"):
        driver.import_onnx(made, {"x": (1, 4, 5, 5)})


def test_the_function_of_the_file_is_not_believed(rng):
    """The attributes say what our operator does, not what a file gives as its body."""
    made, u, bias = winograd_model(rng, *SPECS[0])
    (function,) = made.functions
    for node in function.node:
        if node.op_type == "ConvTranspose":
            node.op_type = "Conv"
    x = maps(rng)[0]
    exe = driver.compile(driver.import_onnx(made, {"x": x.shape}), "llvm", num_threads=1)
    assert relative_error(exe(x), want(x, u, bias, SPECS[0])) < TOLERANCE


# ---- functions of others -----------------------------------------------------------------------


def calls(name, inner, times=1):
    nodes, last = [], "a"
    for i in range(times):
        nodes.append(
            helper.make_node(inner, [last], [f"t{i}"], domain="" if inner == "Relu" else "other")
        )
        last = f"t{i}"
    return helper.make_function(
        "other",
        name,
        ["a"],
        [last],
        nodes,
        [helper.make_opsetid("", 18), helper.make_opsetid("other", 1)],
    )


def calling(name, bodies):
    return model(
        [helper.make_node(name, ["x"], ["y"], domain="other", name="call")],
        {"x": [2, 3]},
        {"y": [2, 3]},
        functions=bodies,
        domains=["other"],
    )


def test_functions_of_others_are_put_in_place():
    made = calling("f", [calls("f", "g", 2), calls("g", "Relu")])
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    exe = driver.compile(driver.import_onnx(made), "llvm", num_threads=1)
    np.testing.assert_array_equal(exe(x), np.maximum(x, 0))


def test_functions_without_end_are_refused():
    endless = calling("f", [calls("f", "g"), calls("g", "f")])
    with pytest.raises(ImportFailed, match="not a valid ONNX model"):
        driver.import_onnx(endless)
    with pytest.raises(ImportFailed, match="function 'f' calls itself"):  # older checkers let it by
        functions.without_foreign_functions(endless)
    bodies = [calls(f"f{i}", f"f{i + 1}", 10) for i in range(20)] + [calls("f20", "Relu")]
    with pytest.raises(ImportFailed, match="functions make 100000000000000000000 nodes"):
        driver.import_onnx(calling("f0", bodies))


# ---- metadata ----------------------------------------------------------------------------------


def test_metadata_says_what_there_is(rng):
    made, _, _ = winograd_model(rng, *SPECS[0])
    spec = operator.read_spec(made.graph.node[0])
    describe(made, [("body", spec)], inline=True)
    assert inlined_layers(made) == ["body"]
    assert '"points": ["0", "1", "-1", "inf"]' in made.metadata_props[0].value
    del made.metadata_props[:]
    describe(made, [("body", spec)], inline=False)
    assert inlined_layers(made) == []
    made.metadata_props[0].value = "{"
    assert inlined_layers(made) == []


def test_a_layer_that_another_tool_has_changed_is_named(rng):
    made, u, bias = winograd_model(rng, *SPECS[0])
    plain = inlined_form(made)
    describe(plain, [("conv", operator.read_spec(made.graph.node[0]))], inline=True)
    # Another tool knows the size and writes the result of its arithmetic.
    x = maps(rng)[0]
    for node in list(plain.graph.node):
        if node.name == "conv/growth":
            plain.graph.node.remove(node)
        if node.name == "conv/ends":
            sizes = numpy_helper.from_array(np.array(x.shape[2:], np.int64))
            node.CopyFrom(
                helper.make_node("Constant", [], list(node.output), name="ends", value=sizes)
            )
    with pytest.warns(UserWarning, match=r"changed by another tool .*\['conv'\]"):
        mod = driver.import_onnx(plain, {"x": x.shape})
    assert len(plan(mod, "llvm")) == 1  # the Conv of the input transform
    exe = driver.compile(mod, "llvm", num_threads=1)
    assert relative_error(exe(x), want(x, u, bias, SPECS[0])) < TOLERANCE
    assert ReferenceEvaluator(plain).run(None, {"x": x})[0].shape == (1, 6, 5, 6)
