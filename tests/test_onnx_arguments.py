"""Nodes of ONNX whose arguments TVM's converters take otherwise, against ONNX Runtime."""

import numpy as np
import pytest
from onnx import helper
from onnx_models import model, run_ort

from tvm_sparsewino import driver
from tvm_sparsewino.errors import ImportFailed


def network(op, tensors=(), inputs=None, **attributes):
    names = [f"c{i}" for i in range(len(tensors))]
    node = helper.make_node(op, inputs or ["x", *names], ["y"], name="node", **attributes)
    shapes = {"y": ["a", "b", "c", "d"]}
    return model([node], {"x": [1, 2, 7, 8]}, shapes, dict(zip(names, tensors, strict=True)))


@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_padding_of_pools_by_rule(op, pad, rng):
    proto = network(op, kernel_shape=[3, 2], strides=[2, 3], auto_pad=pad)
    x = rng.standard_normal((1, 2, 7, 8)).astype(np.float32)
    result = driver.compile(driver.import_onnx(proto), "llvm", num_threads=1)(x)
    expected = run_ort(proto, x)
    # Sums of six numbers near 1.
    assert result.shape == expected.shape and np.allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (0.5, -0.5)])
def test_the_upper_bound_of_a_clip_wins(low, high, rng):
    proto = network("Clip", [np.array(low, np.float32), np.array(high, np.float32)])
    x = rng.standard_normal((1, 2, 7, 8)).astype(np.float32)
    result = driver.compile(driver.import_onnx(proto), "llvm", num_threads=1)(x)
    assert np.array_equal(result, np.minimum(np.maximum(x, np.float32(low)), np.float32(high)))


def test_factors_that_make_no_whole_sizes_are_refused():
    scales = [np.array([1, 1, 1.7, 2], np.float32)]
    proto = network("Resize", scales, ["x", "", "c0"], mode="linear")
    with pytest.raises(ImportFailed, match=r"'node'.*resizes 7 numbers by 1\.7"):
        driver.import_onnx(proto)


def test_factors_of_aligned_corners_may_be_any(rng):
    scales = [np.array([1, 1, 1.6, 2], np.float32)]
    attributes = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    proto = network("Resize", scales, ["x", "", "c0"], **attributes)
    x = rng.standard_normal((1, 2, 7, 8)).astype(np.float32)
    result = driver.compile(driver.import_onnx(proto), "llvm", num_threads=1)(x)
    assert np.allclose(result, run_ort(proto, x), atol=1e-5)
