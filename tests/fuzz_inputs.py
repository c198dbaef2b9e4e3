"""Open damaged ONNX and weights files: each must be read or give one clear error.

``python tests/fuzz_inputs.py --count 20000 --seed 1`` is the long run; the suite does a short one.
A crash ends the process, memory is limited, and a file that takes long is reported. Prints how
many files were read and refused.
"""

import argparse
import contextlib
import random
import resource
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from onnx import helper, inliner
from onnx_models import model, winograd_model

from tvm_sparsewino import driver, weights
from tvm_sparsewino.errors import SparseWinoError

SLOW = 20.0  # seconds for a file of a few KB, on a busy machine
MEMORY = 1 << 30  # bytes above what the libraries take


def seeds(folder):
    """Suffix and bytes of intact files."""
    rng = np.random.default_rng(0)
    made, u, bias = winograd_model(rng, 2, 3, (1, 1, 1, 1), 1, True, sizes=(1, 4, 5, 6))
    yield ".onnx", made.SerializeToString()
    yield ".onnx", inliner.inline_local_functions(made).SerializeToString()
    yield ".onnx", plain_network(rng).SerializeToString()
    path = folder / "weights.safetensors"
    weights.save_weights(path, [weights.LayerWeights.winograd("conv", 2, 3, u, bias)])
    yield ".safetensors", path.read_bytes()


def plain_network(rng):
    """Convolutions, shape arithmetic, and weights that are computed."""
    nodes = [
        helper.make_node("ConstantOfShape", ["ws"], ["w1"], name="fill"),
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], name="conv0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w1"], ["c"], name="conv1", strides=[2, 2]),
        helper.make_node("Shape", ["c"], ["s"], name="shape"),
        helper.make_node("Slice", ["s", "zero", "one"], ["n"], name="slice"),
        helper.make_node("Concat", ["n", "rest"], ["t"], name="concat", axis=0),
        helper.make_node("Reshape", ["c", "t"], ["y"], name="reshape"),
    ]
    tensors = {
        "w0": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "b0": rng.standard_normal(4).astype(np.float32),
        "ws": np.array([2, 4, 3, 3]),
        "zero": np.array([0]),
        "one": np.array([1]),
        "rest": np.array([-1]),
    }
    return model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, "k"]}, tensors)


def damaged(data, rng):
    """``data`` cut short, with changed bytes, or with a piece removed, repeated or moved."""
    data = bytearray(data)
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    for _ in range(1 << rng.randrange(5)):
        at = rng.randrange(len(data))
        length = min(1 << rng.randrange(8), len(data) - at)
        if kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 3 and len(data) > length + 16:
            del data[at : at + length]
        else:
            data[at:at] = data[at : at + length]
    return bytes(data)


def opened(path):
    """Read a file as users do."""
    if path.suffix == ".onnx":
        driver.import_onnx(path)
    else:
        weights.load_weights(path)


def run(count, seed):
    """Files read and files refused."""
    rng = random.Random(seed)
    refused = read = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        intact = list(seeds(folder))
        for suffix, data in intact:  # what the libraries allocate once is not counted below
            path = folder / f"intact{suffix}"
            path.write_bytes(data)
            opened(path)
        used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
        for i in range(count):
            suffix, data = intact[rng.randrange(len(intact))]
            path = folder / f"damaged{suffix}"
            path.write_bytes(damaged(data, rng))
            start = time.perf_counter()
            try:
                opened(path)
                read += 1
            except SparseWinoError as error:
                assert str(error).strip(), f"file {i} of seed {seed}: an error without a message"
                refused += 1
            except BaseException:
                kept = Path(f"fuzz-{seed}-{i}{suffix}")
                kept.write_bytes(path.read_bytes())
                print(f"file {i} of seed {seed} is kept as {kept}", flush=True)
                raise
            seconds = time.perf_counter() - start
            assert seconds < SLOW, f"file {i} of seed {seed} took {seconds:.0f} s"
    return read, refused


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # layers that are changed are warned about
    with contextlib.suppress(KeyboardInterrupt):
        print("read {}, refused {}".format(*run(options.count, options.seed)))
