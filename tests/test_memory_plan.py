"""The static memory plan: layers that follow each other share memory, nothing is kept too long."""

import math

import numpy as np
import pytest
import torch
from tvm import relax

from tvm_sparsewino import driver
from tvm_sparsewino._compat import make_target
from tvm_sparsewino.relay_passes import sparsewino_pipeline

FLOAT_BYTES = 4


class Chain(torch.nn.Module):
    """Layers of one size, of which only two are ever alive."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(8))

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x.mean((2, 3))


class Blocks(torch.nn.Module):
    """Residuals, a branch that waits, a concatenation, pooling, two sizes of maps."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.low = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.up = torch.nn.ConvTranspose2d(8, 8, 2, 2)
        self.join = torch.nn.Conv2d(16, 8, 1)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(x + layer(x))
        y = self.up(torch.relu(self.low(torch.nn.functional.max_pool2d(x, 2))))
        return self.join(torch.cat([x, y], 1)).mean((2, 3))


def planned_and_peak(mod):
    """Bytes of all storage of a lowered network, and the most that its tensors need at a time.

    Tensors live from their allocation to the last call that names them.
    """
    bindings = [b for block in mod["main"].body.blocks for b in block.bindings]
    planned, sizes, last = 0, {}, {}
    for number, binding in enumerate(bindings):
        value = binding.value
        name = getattr(getattr(value, "op", None), "name", "")
        if name == "relax.vm.kill_object":
            continue
        if name == "relax.vm.alloc_storage":
            planned += math.prod(int(d) for d in value.args[0].values)
        elif name == "relax.vm.alloc_tensor":
            size = FLOAT_BYTES * math.prod(int(d) for d in value.args[2].values)
            sizes[binding.var] = number, size
        else:
            last.update((used, number) for used in relax.analysis.used_vars(value))
    alive = [
        sum(size for var, (first, size) in sizes.items() if first <= number <= last.get(var, first))
        for number in range(len(bindings))
    ]
    return planned, max(alive)


@pytest.mark.parametrize(("network", "most"), [(Chain, 1.0), (Blocks, 1.35)])
def test_memory_is_reused(network, most):
    """What is planned may exceed what is needed by fragments, where sizes differ."""
    mod = driver.import_torch(network().eval(), (torch.randn(1, 8, 16, 16),))
    with make_target({"kind": "llvm"}):
        planned, peak = planned_and_peak(sparsewino_pipeline()(mod))
    map_bytes = FLOAT_BYTES * 8 * 16 * 16
    assert peak >= 2 * map_bytes
    # The result is the caller's and has storage of its own.
    assert planned <= most * peak + FLOAT_BYTES * 8


def test_a_concatenation_takes_what_precedes_it_into_one_pass():
    """Element-wise producers write into the concatenated tensor themselves."""

    class Net(torch.nn.Module):
        def forward(self, x, y):
            return torch.relu(torch.cat([torch.relu(x), x * y + 1], 1))

    tensors = torch.randn(1, 3, 5, 7), torch.randn(1, 3, 5, 7)
    mod = driver.import_torch(Net(), tensors)
    with make_target({"kind": "llvm"}):
        planned, _ = planned_and_peak(sparsewino_pipeline()(mod))
    assert planned == FLOAT_BYTES * 6 * 5 * 7  # the result, nothing else
    got = driver.compile(mod, "native")(*(t.numpy() for t in tensors))
    # A multiplication and an addition may be rounded once or twice.
    assert np.abs(got - Net()(*tensors).numpy()).max() <= 1e-6
