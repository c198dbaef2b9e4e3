"""The networks that the onnx package carries. ``benchmarks/light_models.py`` compiles all of them,
which takes minutes; here all are imported, and small ones are run.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_models import relative_error, run_ort_all

from tvm_sparsewino import driver
from tvm_sparsewino.relay_passes import FoldBatchNorm
from tvm_sparsewino.relay_passes.bindings import Bindings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import light_models

CONVOLUTIONS = {
    "bvlc_alexnet": 5,
    "densenet121": 121,
    "inception_v1": 57,
    "inception_v2": 69,
    "resnet50": 53,
    "shufflenet": 49,
    "squeezenet": 26,
    "vgg19": 16,
    "zfnet512": 5,
}


def compiled(source):
    return driver.compile(driver.import_onnx(source), "llvm", num_threads=1)


@pytest.mark.parametrize("name", light_models.NAMES)
def test_all_are_imported(name):
    """No BatchNorm is left, and nothing is stacked only to be added."""
    mod = FoldBatchNorm()(driver.import_onnx(light_models.path_of(name)))
    order = Bindings(mod["main"]).order
    names = [getattr(getattr(b.value, "op", None), "name", "") for b in order]
    assert names.count("relax.nn.conv2d") == CONVOLUTIONS[name]
    assert not {"relax.nn.batch_norm", "relax.stack"} & set(names)


def test_the_answer_that_comes_with_one():
    path = light_models.path_of("squeezenet")
    exe = compiled(path)
    (info,) = exe.inputs
    x = (np.arange(np.prod(info.shape)) / np.prod(info.shape)).reshape(info.shape)
    want = path.with_name("light_squeezenet_output_0.pb")
    want = numpy_helper.to_array(onnx.load_tensor(want))
    np.testing.assert_allclose(exe(x.astype(np.float32)), want, rtol=1e-3, atol=1e-7)  # ONNX's own


def test_with_random_weights(rng):
    made = light_models.with_random_weights(light_models.path_of("shufflenet"))
    x = rng.standard_normal((1, 3, 224, 224)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = run_ort_all(made, x)
    pairs = zip(compiled(made)(x), want, strict=True)  # the last softmax, and what it reads
    assert all(relative_error(*pair) < 1e-4 for pair in pairs)  # float32, Winograd's rounding
