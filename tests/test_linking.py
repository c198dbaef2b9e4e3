"""Files that hold their constants once: mapped, used in place, and readable by TVM alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm
from relax_networks import const, module
from tvm import relax

from tvm_sparsewino import driver

CONSTANTS = (
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(7, np.int64),
    np.zeros((0, 3), np.float32),
    np.array([[True], [False]]),
    np.arange(5, dtype=np.int8),
    np.linspace(0, 1, 17),
    np.full((2, 2), 0.5, np.float16),
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network that returns constants of many kinds beside what it computes."""
    path = tmp_path_factory.mktemp("a folder") / "net's.so"

    def build(b, x):
        y = b.emit(relax.op.exp(b.emit(relax.op.add(x, const(CONSTANTS[0])))))
        constants = [relax.const(array, str(array.dtype)) for array in CONSTANTS]
        return b.emit(relax.Tuple([y, *constants]))

    exe = driver.compile(module(build, (2, 3)), "llvm")
    exe.save(path)
    return exe, path


def check(outputs, x):
    for got, want in zip(outputs[1:], CONSTANTS, strict=True):
        np.testing.assert_array_equal(got, want)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
    np.testing.assert_allclose(outputs[0], np.exp(x + CONSTANTS[0]), rtol=1e-6)


def test_what_was_saved_comes_back(saved):
    exe, path = saved
    x = np.ones((2, 3), np.float32)
    loaded = driver.load(path)
    for network in (exe, loaded):
        for _ in range(3):
            outputs = network(x)
            check(outputs, x)
            for output in outputs:
                output[...] = 0  # they are the caller's


def test_constants_are_used_where_the_file_is_mapped(saved):
    tensors = driver.load(saved[1])._constants.tensors
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if saved[1].name in line:
            span, rights = line.split()[:2]
            mapped.append((*(int(end, 16) for end in span.split("-")), rights))
    assert len(tensors) == len(CONSTANTS)
    for tensor in tensors:
        start = tensor.data_ptr()
        assert start % 64 == 0
        if 0 not in tensor.shape:
            (rights,) = [r for first, end, r in mapped if first <= start < end]
            assert rights[1] == "-", "constants can be written to"


def test_the_file_holds_every_constant_once(tmp_path):
    weight = np.random.default_rng(0).random(1 << 18).astype(np.float32)

    def build(b, x):
        y = b.emit(relax.op.add(x, const(weight)))
        return b.emit(relax.op.multiply(y, const(weight.copy())))

    exe = driver.compile(module(build, weight.shape), "llvm")
    exe.save(tmp_path / "net.so")
    data = (tmp_path / "net.so").read_bytes()
    assert data.count(weight[100:200].tobytes()) == 1
    assert len(data) < weight.nbytes + 100_000


# Memory of its own that a process takes to load a network and to call it twice.
MEMORY = """
import sys
sys.modules["torch"] = None  # where TVM imports it, it is most of the process
from pathlib import Path
import numpy as np
from tvm_sparsewino import loading, host
loading.load(sys.argv[1], 1)(np.zeros((2, 3), np.float32))  # what is needed once
before = host.resident_bytes("RssAnon")
network = loading.load(sys.argv[2], 1)
x = np.ones((1, 16), np.float32)
for _ in range(2):
    network(x)
print(host.resident_bytes("RssAnon") - before)
"""


def test_loading_copies_no_weights(saved, tmp_path):
    weight = np.random.default_rng(0).random((16, 1 << 18), np.float32)  # 16 MiB
    mod = module(lambda b, x: b.emit(relax.op.matmul(x, const(weight))), (1, 16))
    driver.compile(mod, "llvm").save(tmp_path / "net.so")
    command = [sys.executable, "-c", MEMORY, saved[1], tmp_path / "net.so"]
    result = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    assert int(result.stdout) < weight.nbytes / 2  # the output is 1 MiB


# Only what a program without this package would use.
PLAIN = """
import sys
import numpy as np
import tvm
from tvm import relax
machine = relax.VirtualMachine(tvm.runtime.load_module(sys.argv[1]), tvm.cpu())
outputs = machine["main"](tvm.runtime.tensor(np.load(sys.argv[2])))
np.savez(sys.argv[3], *[output.numpy() for output in outputs])
"""


def test_tvm_alone_runs_the_file(saved, tmp_path):
    x = np.ones((2, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-c", PLAIN, saved[1], tmp_path / "x.npy", tmp_path / "y.npz"]
    subprocess.run(list(map(str, command)), check=True)
    with np.load(tmp_path / "y.npz") as outputs:
        check([outputs[f"arr_{i}"] for i in range(len(CONSTANTS) + 1)], x)


@pytest.mark.parametrize("wrong", [(-1,), (len(CONSTANTS),), (0, 1), (), ("0",), (0.0,)])
def test_numbers_that_no_constant_has(saved, wrong):
    module = tvm.runtime.load_module(str(saved[1]))
    constant = module.get_function("sparsewino_constant", query_imports=True)
    with pytest.raises(ValueError, match="expected the number of a constant"):
        constant(*wrong)


def test_a_network_without_kernels(tmp_path):
    """There is no code that constants could be linked to but TVM's own."""
    mod = module(lambda b, x: b.emit(relax.Tuple([x, const(CONSTANTS[0])])), (2, 3))
    exe = driver.compile(mod, "llvm")
    exe.save(tmp_path / "net.so")
    for network in (exe, driver.load(tmp_path / "net.so")):
        for _ in range(3):
            np.testing.assert_array_equal(network(CONSTANTS[0] + 1)[1], CONSTANTS[0])
