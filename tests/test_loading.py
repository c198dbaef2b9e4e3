"""Loading in a fresh process: without PyTorch and onnx, and never by way of a crash."""

import subprocess
import sys

import numpy as np
import pytest
from relax_networks import module, winograd

from tvm_sparsewino import driver

SHAPE = (1, 4, 8, 9)

LOAD = """
import sys
sys.modules["torch"] = sys.modules["onnx"] = None  # whoever imports them fails
import numpy as np
import tvm_sparsewino as sw
np.save(sys.argv[3], sw.load(sys.argv[1])(np.load(sys.argv[2])))
print(sorted(name for name in sys.modules if name.startswith("tvm_sparsewino.relay_passes")))
"""

LIGHT = """
import sys
from pathlib import Path
import numpy as np
import tvm_sparsewino as sw
exe = sw.load(sys.argv[1])
x, y = np.load(sys.argv[2]), np.load(sys.argv[3])
np.testing.assert_array_equal(exe(x), y)
session = exe.session()
(buffer,) = session.empty_inputs()
buffer[...] = x
np.testing.assert_array_equal(np.from_dlpack(session(buffer)), y)
print("tvm" in sys.modules, "libtvm_compiler" in Path("/proc/self/maps").read_text())
"""

# Both sides of TVM in one process, whichever comes first.
BOTH = """
import sys
import numpy as np
import tvm_sparsewino as sw
x, y = np.load(sys.argv[2]), np.load(sys.argv[3])
{first}
import tvm
from tvm import relax
{second}
v = relax.Var("x", relax.TensorType((2, 3), "float32"))
builder = relax.BlockBuilder()
with builder.function("main", [v]):
    builder.emit_func_output(builder.emit(relax.op.exp(v)))
compiled = sw.compile(builder.get(), num_threads=1)
np.testing.assert_array_equal(compiled(np.zeros((2, 3), np.float32)), np.ones((2, 3)))
for network in (exe, sw.load(sys.argv[1])):
    np.testing.assert_array_equal(network(x), y)
"""

REFUSE = """
import sys
import tvm_sparsewino as sw
for path in sys.argv[1:]:
    try:
        sw.load(path)
    except sw.SparseWinoError as error:
        print(error)
"""


def python(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "net.so"
    rng = np.random.default_rng(7)
    u = rng.standard_normal((36, 4, 4)) * (rng.random((36, 4, 4)) < 0.2)
    exe = driver.compile(module(lambda b, x: winograd(b, x, u.astype("float32")), SHAPE))
    exe.save(path)
    return exe, path


def test_loading_needs_neither_torch_nor_onnx_nor_the_compiler(saved, rng, tmp_path):
    exe, path = saved
    x = rng.standard_normal(SHAPE).astype("float32")
    np.save(tmp_path / "x.npy", x)
    printed = python(LOAD, path, tmp_path / "x.npy", tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), exe(x))
    assert printed == ["[]"]


@pytest.fixture(scope="module")
def example(saved, tmp_path_factory):
    """Files of an input and of what the network answers."""
    folder = tmp_path_factory.mktemp("example")
    x = np.random.default_rng(8).standard_normal(SHAPE).astype("float32")
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", saved[0](x))
    return folder / "x.npy", folder / "y.npy"


def test_running_loads_no_compiler(saved, example):
    assert python(LIGHT, saved[1], *example) == ["False False"]


def test_the_command_that_runs_loads_no_compiler(saved, example, tmp_path):
    program = """
import sys
from tvm_sparsewino.cli.main import main
assert main(sys.argv[1:]) == 0
print("tvm" in sys.modules)
"""
    out = tmp_path / "y.npz"
    printed = python(program, "run", saved[1], "--input", example[0], "--output", out)
    assert printed[-1] == "False"
    np.testing.assert_array_equal(np.load(out)["output_0"], np.load(example[1]))


@pytest.mark.parametrize("first", ["load", "tvm"])
def test_loading_and_compiling_in_one_process(saved, example, first):
    load = "exe = sw.load(sys.argv[1])"
    given = {"first": load, "second": ""} if first == "load" else {"first": "", "second": load}
    python(BOTH.format(**given), saved[1], *example)


def test_files_that_would_crash_the_process_are_refused(saved, tmp_path):
    """Truncated, altered, without the description, and for a CPU that does not exist."""
    _, path = saved
    data = path.read_bytes()
    library = data.index(b'{"format":"tvm-sparsewino artefact"')
    altered = bytearray(data)
    altered[library // 2] ^= 0xFF
    cases = {"cut.so": data[: len(data) // 2], "altered.so": altered, "bare.so": data[:library]}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    driver.compile(
        module(lambda b, x: winograd(b, x, np.ones((36, 4, 4), np.float32)), SHAPE),
        "llvm -mcpu=sapphirerapids",
    ).save(tmp_path / "other.so")
    names = [*cases, "other.so"]
    lines = python(REFUSE.replace("import tvm_sparsewino", BLIND), *(tmp_path / n for n in names))
    assert [line.partition(": ")[0] for line in lines] == [str(tmp_path / n) for n in names]
    for line, text in zip(lines, ("cut off", "checksum", "cut off", "avx512f"), strict=True):
        assert text in line


# The host may have AVX-512; here it does not.
BLIND = """from tvm_sparsewino.schedules import cpu_features
few = frozenset({"sse3", "avx2", "fma"})
cpu_features.host_instruction_sets = lambda: few
import tvm_sparsewino"""
