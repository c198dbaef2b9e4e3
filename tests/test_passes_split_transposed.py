"""Transposed convolutions become convolutions: what is computed, and what stays."""

import numpy as np
import pytest
import torch
import tvm
from relax_networks import const, evaluate, module, operators
from tvm import relax

from tvm_sparsewino import driver
from tvm_sparsewino.relay_passes.split_transposed import SplitTransposed, phase_filters

F32 = 1e-5  # of the output's maximum: sums of some dozen terms

# As PyTorch takes them: odd filters, strides above and below the filter, crops, groups.
LAYERS = [
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (1, 3)},
    {"kernel_size": 2, "stride": 3, "output_padding": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 5, "stride": 3, "padding": (2, 0), "bias": False},
]


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_the_same_is_computed(options):
    layer = torch.nn.ConvTranspose2d(4, 6, **options)
    x = torch.randn(2, 4, 5, 7)
    mod = driver.import_torch(layer, (x,))
    after = SplitTransposed()(mod)
    assert "relax.nn.conv2d" in operators(after)
    assert "relax.nn.conv2d_transpose" not in operators(after)
    want = layer(x).detach().numpy()
    assert np.abs(evaluate(after, x.numpy()) - want).max() <= F32 * np.abs(want).max()


def test_compiled_with_a_plan_under_the_layers_name():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.ConvTranspose2d(4, 8, 2, 2)

        def forward(self, x):
            return torch.relu(self.up(x))

    network, x = Net(), torch.randn(1, 4, 6, 6)
    exe = driver.compile(driver.import_torch(network, (x,)), "native")
    (layer,) = exe.plan
    assert (layer.name, layer.conv.k, layer.conv.r) == ("up", 32, 1)
    assert layer.algorithm != "left"
    want = network(x).detach().numpy()
    assert np.abs(exe(x.numpy()) - want).max() <= F32 * np.abs(want).max()


def test_zeros_stay_zeros():
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[1, 2, 0, 1] = 5
    filters, taps = phase_filters(weight, [2, 2], 1)
    assert (filters.shape, taps) == ((12, 2, 2, 2), [2, 2])
    assert np.count_nonzero(filters) == 1


def transposed(weight, **attrs):
    def build(b, x):
        return b.emit(relax.op.nn.conv2d_transpose(x, weight, strides=2, **attrs))

    return build


@pytest.mark.parametrize(
    "mod",
    [
        module(transposed(const(np.ones((4, 3, 2, 2))), dilation=2), (1, 4, 5, 5)),
        module(
            transposed(const(np.ones((4, 3, 2, 2))), data_layout="NHWC"),
            (1, 5, 5, 4),
        ),
        module(transposed(const(np.ones((4, 3, 2, 2)))), (tvm.tirx.Var("n", "int64"), 4, 5, 5)),
        module(lambda b, x, w: transposed(w)(b, x), (1, 4, 5, 5), (4, 3, 2, 2)),
        module(lambda b, x: b.emit(relax.op.nn.relu(x)), (1, 4)),
    ],
    ids=["dilation", "layout", "symbolic", "weights", "none"],
)
def test_what_stays(mod):
    tvm.ir.assert_structural_equal(SplitTransposed()(mod), mod)
