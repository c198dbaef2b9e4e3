"""Convolutions of ONNX: its backend tests, and what they leave out."""

import numpy as np
import onnx_conv_cases
import pytest
from onnx import helper
from onnx_models import model, relative_error, run_ort

from tvm_sparsewino import driver
from tvm_sparsewino.errors import ImportFailed, ShapeError

CASES = onnx_conv_cases.cases()


def written():
    """Case -> its line of the table."""
    lines = onnx_conv_cases.TABLE.read_text().splitlines(keepends=True)
    return {line.split("|")[1].strip(): line for line in lines if line.startswith("| test_")}


def test_the_table_is_complete_and_nothing_in_it_is_wrong():
    assert set(written()) == set(CASES)
    assert onnx_conv_cases.TABLE.read_text().startswith(onnx_conv_cases.HEADER)
    assert not [line for line in written().values() if "wrong" in line]
    right = [line for line in written().values() if "| right |" in line]
    assert all(f"| {op} | right" not in "".join(right) for op in ("QLinearConv", "ConvInteger"))
    assert len(right) > 40


@pytest.mark.parametrize("name", CASES)
def test_cases_of_onnx(name):
    assert onnx_conv_cases.row(name, *CASES[name]) == written()[name]


# ---- what those cases leave out ----------------------------------------------------------------


def one(operator, x, w, bias=None, **attributes):
    """A model of one convolution with constant weights."""
    tensors = {"w": w} if bias is None else {"w": w, "b": bias}
    node = helper.make_node(operator, ["x", *tensors], ["y"], name="conv", **attributes)
    return model([node], {"x": x.shape}, {"y": None}, tensors)


def arrays(rng, *shapes):
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
    "attributes",
    [
        {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
        {"auto_pad": "VALID", "pads": [9, 9, 9, 9], "dilations": [2, 1]},
        {"pads": [0, 1, 2, 3], "group": 2, "strides": [1, 2]},
    ],
    ids=str,
)
def test_conv_like_onnx_runtime(attributes, rng):
    groups = attributes.get("group", 1)
    x, w, b = arrays(rng, (2, 4, 9, 8), (6, 4 // groups, 3, 2), (6,))
    made = one("Conv", x, w, b, **attributes)
    if "pads" in attributes and "auto_pad" in attributes:
        want = run_ort(one("Conv", x, w, b, dilations=attributes["dilations"]), x)
    else:
        want = run_ort(made, x)
    exe = driver.compile(driver.import_onnx(made), "llvm", num_threads=1)
    assert relative_error(exe(x), want) < 1e-5  # float32, another order of sums


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2], "output_shape": [10, 9]},
        {"strides": [3, 2], "output_shape": [16, 10]},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [3, 3], "output_padding": [2, 1], "pads": [1, 1, 0, 2]},
        {"strides": [2, 2], "group": 2, "dilations": [2, 1], "auto_pad": "VALID"},
    ],
    ids=str,
)
def test_conv_transpose_like_onnx_runtime(attributes, rng):
    groups = attributes.get("group", 1)
    x, w, b = arrays(rng, (2, 4, 5, 4), (4, 6 // groups, 3, 3), (6,))
    made = one("ConvTranspose", x, w, b, **attributes)
    exe = driver.compile(driver.import_onnx(made), "llvm", num_threads=1)
    assert relative_error(exe(x), run_ort(made, x)) < 1e-5


@pytest.mark.parametrize(
    ("operator", "shapes", "attributes", "text"),
    [
        ("Conv", [(1, 4, 5, 5), (6, 3, 3, 3)], {}, "4 channels do not fit"),
        ("Conv", [(1, 4, 5, 5), (5, 2, 3, 3)], {"group": 2}, "in 2 groups"),
        ("Conv", [(1, 4, 5, 5), (6, 4, 3, 3)], {"group": 0}, "group must be at least 1"),
        ("Conv", [(1, 4, 5, 5), (6, 4, 3, 3)], {"pads": [1, 1, -1, 1]}, "pads must be 4 numbers"),
        ("Conv", [(1, 4, 5, 5), (6, 4, 3, 3)], {"strides": [0, 1]}, "strides must be 2 numbers"),
        ("Conv", [(1, 4, 5, 5), (6, 4, 3, 3)], {"kernel_shape": [3, 5]}, "does not fit"),
        ("Conv", [(1, 4, 5, 5), (6, 4, 3, 3)], {"auto_pad": "SAME"}, "auto_pad 'SAME' is unknown"),
        ("Conv", [(1, 4, 2, 5), (6, 4, 3, 3)], {}, "smaller than the filter"),
        ("Conv", [(1, 4, 5, 5), (6, 4, 0, 3)], {}, "empty operands"),
        ("Conv", [(1, 4, 5, 5), (6, 4, 3)], {}, "needs 1 to 3 spatial dimensions"),
        ("Conv", [(1, 4, 5, 5), (6, 4, 3, 3), (5,)], {}, r"a bias of 6 channels cannot be \[5\]"),
        ("ConvTranspose", [(1, 4, 5, 5), (3, 4, 3, 3)], {}, "4 channels do not fit"),
        ("ConvTranspose", [(1, 4, 5, 5), (4, 4, 3, 3)], {"pads": [4] * 4}, "would have the size"),
        (
            "ConvTranspose",
            [(1, 4, 5, 5), (4, 4, 3, 3)],
            {"output_shape": [9]},
            "output_shape must be 2 numbers",
        ),
        (
            "ConvTranspose",
            [(1, 4, 5, 5), (4, 4, 3, 3)],
            {"auto_pad": "SAME_UPPER", "strides": [4, 4]},
            "leaves outputs without any input",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(operator, shapes, attributes, text, rng):
    x, *tensors = arrays(rng, *shapes)
    made = one(operator, x, *tensors, **attributes)
    with pytest.raises(ImportFailed, match=rf"node 'conv' \({operator}\): .*{text}"):
        driver.import_onnx(made)


def test_integer_data_is_refused_by_name(rng):
    x, w = arrays(rng, (1, 4, 5, 5), (6, 4, 3, 3))
    made = one("Conv", x, w)
    made.graph.input[0].type.tensor_type.elem_type = 6
    with pytest.raises(ShapeError, match=r"node 'conv'.*data must be float32, got int32"):
        driver.import_onnx(made)
