"""Linear layers, dense and sparse: time, bytes of weights per second, what the model predicts.

    python benchmarks/kernels/linear.py [--layers 512x1000 25088x4096] [--rows 1 16] [--density 0.1]

One thread, CPU time, least of many means over 2 ms. Answers are checked before they are timed.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.config_linear import LinearPlan, LinearShape
from tvm_sparsewino.cost_linear import predict_dense_linear, predict_sparse_linear
from tvm_sparsewino.packing_linear import pack_linear
from tvm_sparsewino.schedules.linear_build import build_linear, linear_layout
from tvm_sparsewino.schedules.target import CpuTarget, parse_target
from tvm_sparsewino.tuner.measure import LocalKernel

WRONG = 1e-5
SECONDS = 0.5  # of calls per kernel


def measure(
    shape: LinearShape, algorithm: str, density: float, cpu: CpuTarget
) -> tuple[float, int]:
    """Seconds of one call, and bytes of the packed weights.

    Raises:
        SystemExit: the answer is wrong.
    """
    rng, unit = np.random.default_rng(0), (cpu.lanes, cpu.vector_registers)
    weight = rng.standard_normal((shape.k, shape.c), np.float32)
    weight *= rng.random(weight.shape, np.float32) < density
    x = rng.standard_normal((shape.n, shape.c), np.float32)
    plan = LinearPlan("layer", shape, density, algorithm)
    packed = pack_linear(weight, linear_layout(plan, *unit))
    specs = [(array.shape, array.dtype.name) for array in packed]
    kernel = build_linear(plan, Epilogue(), specs, *unit)
    function = tvm_ir.build_module(kernel, cpu.tvm_target())[str(kernel.attrs["global_symbol"])]
    output = np.empty((shape.n, shape.k), np.float32)
    operands = [tvm_ir.runtime_tensor(array) for array in (x, *packed, output)]
    function(*operands)
    want = x @ weight.T
    if np.abs(operands[-1].numpy() - want).max() > WRONG * np.abs(want).max():
        raise SystemExit(f"{shape} {algorithm}: wrong")
    timed = LocalKernel(function, operands, time.thread_time)
    best, end = timed.seconds(), time.thread_time() + SECONDS
    while time.thread_time() < end:
        best = min(best, timed.seconds())
    return best, sum(array.nbytes for array in packed)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    layers = ["512x1000", "2048x1000", "4096x4096", "25088x4096"]
    parser.add_argument("--layers", nargs="+", default=layers, metavar="CxK")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 16])
    parser.add_argument("--density", type=float, default=0.1)
    arguments = parser.parse_args()
    cpu, table = parse_target("native"), Table()
    tvm_ir.configure_thread_pool(1)
    for column in ("layer", "rows", "kernel", "ms", "GB/s of weights", "predicted Mcycles"):
        table.add_column(column, justify="left" if column in ("layer", "kernel") else "right")
    unit = cpu.lanes, cpu.vector_registers
    for layer in arguments.layers:
        for n in arguments.rows:
            shape = LinearShape(n, *map(int, layer.split("x")))
            predicted = {
                "dense_linear": predict_dense_linear(shape, *unit),
                "sparse_linear": predict_sparse_linear(shape, arguments.density, *unit),
            }
            for algorithm, cycles in predicted.items():
                density = arguments.density if algorithm == "sparse_linear" else 1.0
                seconds, size = measure(shape, algorithm, density, cpu)
                rate = f"{size / seconds / 1e9:.1f}"
                table.add_row(
                    layer, str(n), algorithm, f"{seconds * 1e3:.3f}", rate, f"{cycles / 1e6:.3g}"
                )
    Console().print(table)


if __name__ == "__main__":
    main()
