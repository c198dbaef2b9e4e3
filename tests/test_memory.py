"""Freed memory goes back to the system, and compiling copies no packed weights."""

import subprocess
import sys

import pytest

from tvm_sparsewino import host, memory

PROGRAM = """
import ctypes
from tvm_sparsewino.memory import release_freed

def held():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

blocks = [bytes(65536) for _ in range(1600)]  # 100 MB below the size that is mapped by itself
keep = bytes(65536)  # behind them, so that the heap cannot shrink from its end
del blocks
before = held()
release_freed()
print(before - held())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_goes_back():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) > 50e6


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert memory.release_freed() is None


# Memory that compiling takes beyond the weights it was given, over that of the packed weights.
# The second network is compiled after all that is needed once is there.
COMPILING = """
import sys
import numpy as np
from tvm import relax
from tvm_sparsewino import driver
from tvm_sparsewino.host import HELD, PEAK, reset_peak, resident_bytes

def network(inputs, outputs):
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, inputs, 1, 1), "float32"))
    weight = rng.standard_normal((outputs, inputs), np.float32)
    with builder.function("main", [x]):
        with builder.dataflow():
            if sys.argv[1] == "conv":
                call = relax.op.nn.conv2d(x, relax.const(weight[:, :, None, None]))
            else:
                flat = builder.emit(relax.op.reshape(x, (1, inputs)))
                turned = builder.emit(relax.op.permute_dims(relax.const(weight)))
                call = relax.op.matmul(flat, turned)
            output = builder.emit_output(builder.emit(call))
        builder.emit_func_output(output)
    return builder.get()

driver.compile(network(8, 16), "llvm", num_threads=1)
mod = network(2048, 8192)
before = resident_bytes(HELD)
reset_peak()
compiled = driver.compile(mod, "llvm", num_threads=1)
packed = 4 * sum(int(np.prod(tensor.shape)) for tensor in compiled._constants.tensors)
print(packed, resident_bytes(PEAK) - before, [plan.algorithm for plan in compiled.plan])
"""


@pytest.mark.skipif(not host.can_reset_peak(), reason="the system tells no peak")
@pytest.mark.parametrize("layer", ["conv", "linear"])
def test_compiling_copies_no_packed_weights(layer):
    result = subprocess.run(
        [sys.executable, "-c", COMPILING, layer], capture_output=True, text=True, check=True
    )
    packed, taken, algorithms = result.stdout.split(maxsplit=2)
    assert "left" not in algorithms
    assert int(packed) >= 64 << 20
    # One more copy would be 2 times; beside weights, code takes a few MiB.
    assert int(taken) < 1.25 * int(packed)
