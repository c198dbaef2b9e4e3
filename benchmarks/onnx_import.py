"""Time and memory of importing and compiling a VGG-16-sized ONNX file.

    python benchmarks/onnx_import.py [--out FILE.json] [--size 224] [--density 1.0 0.1]

The network: VGG-16's thirteen convolutions with biases and ReLU, and a classifier of 4096 hidden
units behind global average pooling: 84 MB of float32. Each density runs in a process of its own
with one thread. Memory is what the process holds at most (VmHWM) above what it held after a tiny
network had been imported and compiled, so that libraries do not count. The answer is checked
against ONNX Runtime before anything is reported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvm_sparsewino import host

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
HIDDEN, CLASSES = 4096, 1000
TOLERANCE = 1e-4  # of the output's maximum: float32, Winograd against direct sums


def network(size: int, density: float) -> onnx.ModelProto:
    """The network with random weights of which ``density`` are not zero."""
    rng = np.random.default_rng(0)
    nodes, tensors, last, channels = [], [], "x", 3

    def tensor(name: str, *shape: int) -> str:
        spread = np.sqrt(2 / max(np.prod(shape[1:]) * density, 1))
        array = rng.standard_normal(shape, np.float32) * np.float32(spread)
        if len(shape) == 4:
            array *= rng.random(shape, np.float32) < density
        tensors.append(numpy_helper.from_array(array, name))
        return name

    def add(operator: str, name: str, inputs: list[str], **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    for block, (width, count) in enumerate(BLOCKS):
        for i in range(count):
            name = f"conv{block}_{i}"
            inputs = [last, tensor(f"{name}.weight", width, channels, 3, 3)]
            inputs.append(tensor(f"{name}.bias", width))
            last = add("Relu", f"{name}_relu", [add("Conv", name, inputs, pads=[1] * 4)])
            channels = width
        last = add("MaxPool", f"pool{block}", [last], kernel_shape=[2, 2], strides=[2, 2])
    last = add("Flatten", "flat", [add("GlobalAveragePool", "mean", [last])])
    for name, width in (("hidden", HIDDEN), ("classes", CLASSES)):
        inputs = [last, tensor(f"{name}.weight", width, channels), tensor(f"{name}.bias", width)]
        last, channels = add("Gemm", name, inputs, transB=1), width
    graph = helper.make_graph(
        nodes,
        "vgg",
        [helper.make_tensor_value_info("x", 1, [1, 3, size, size])],
        [helper.make_tensor_value_info(last, 1, [1, CLASSES])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def measure(path: str, dense: bool) -> None:
    """Import and compile in this process; print one line of JSON."""
    import tvm_sparsewino as sw

    config = sw.CompileConfig(winograd_for_dense=dense)
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny.onnx"
        onnx.save(helper_model(), tiny)
        sw.compile(sw.import_onnx(tiny), num_threads=1)
    base = host.resident_bytes(host.HELD)
    host.reset_peak()
    start, cpu = time.perf_counter(), time.process_time()
    module = sw.import_onnx(path)
    imported, after_import = time.perf_counter(), host.resident_bytes(host.PEAK)
    network = sw.compile(module, config=config, num_threads=1)
    compiled, cpu = time.perf_counter(), time.process_time() - cpu
    peak = host.resident_bytes(host.PEAK)
    x = np.random.default_rng(1).standard_normal(network.inputs[0].shape, np.float32)
    print(
        json.dumps(
            {
                "import_s": imported - start,
                "compile_s": compiled - imported,
                "cpu_s": cpu,
                "import_bytes": after_import - base,
                "peak_bytes": peak - base,
                "held_bytes": host.resident_bytes(host.HELD) - base,
                "algorithms": sorted({p.algorithm for p in network.plan}),
                "error": error(network(x), reference(path, x)),
            }
        )
    )


def helper_model() -> onnx.ModelProto:
    """One small convolution."""
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 4, 6, 6])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def reference(path: str, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(path).run(None, {"x": x})[0]


def error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--density", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--no-winograd-for-dense", action="store_true")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, not options.no_winograd_for_dense)
        return
    results = []
    for density in options.density:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vgg.onnx"
            onnx.save(network(options.size, density), path)
            command = [sys.executable, __file__, "--measure", str(path)]
            command += ["--no-winograd-for-dense"] if options.no_winograd_for_dense else []
            line = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            result = {"density": density, "file_bytes": path.stat().st_size, **json.loads(line)}
        if not result["error"] < TOLERANCE:
            sys.exit(f"wrong answer at density {density}: {result['error']:.1e}")
        results.append(result)
        size = result["file_bytes"]
        print(
            f"density {density:4.2f}: {size / 1e6:.0f} MB, import {result['import_s']:.1f} s, "
            f"compile {result['compile_s']:.1f} s, {result['cpu_s']:.1f} s of CPU; "
            f"memory {result['import_bytes'] / size:.2f}x in import, "
            f"{result['peak_bytes'] / size:.2f}x at most, "
            f"{result['held_bytes'] / size:.2f}x after; {', '.join(result['algorithms'])}; "
            f"error {result['error']:.1e}"
        )
    if options.out:
        environment = {"machine": host.processor(), "size": options.size}
        options.out.write_text(json.dumps({**environment, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
