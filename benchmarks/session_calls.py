"""Calls of one network from several threads: lost results, throughput, overhead, load time.

python benchmarks/session_calls.py [--calls 100000] [--out FILE]. Prints JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from tvm import relax

import tvm_sparsewino as sw
from tvm_sparsewino._compat import from_dlpack
from tvm_sparsewino.nn import convert
from tvm_sparsewino.thread_pool import available_cores

LOAD = """
import time, sys
import tvm
start = time.perf_counter(), time.process_time()
import tvm_sparsewino as sw
exe = sw.load(sys.argv[1])
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""


def network(channels, size, threads):
    """Two Winograd layers, compiled, and its example."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, channels, 3, padding=1), torch.nn.ReLU()]
    layers += [torch.nn.Conv2d(channels, channels, 3, padding=1)]
    x = torch.rand(1, 3, size, size)
    net = convert(torch.nn.Sequential(*layers), tile=4)
    return sw.compile(sw.import_torch(net, (x,)), num_threads=threads), x


def trivial():
    """A network that only adds one: what is left of a call is overhead."""
    x = relax.Var("x", relax.TensorType((1, 16), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.add(x, relax.const(1.0))))
    return sw.compile(builder.get(), num_threads=1)


def together(work, callers):
    """Seconds until ``work(number)`` has run in ``callers`` threads."""
    barrier = threading.Barrier(callers + 1)

    def run(number):
        barrier.wait()
        work(number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(callers)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def lost_results(callers, calls):
    """How many of ``calls`` calls from ``callers`` threads gave another answer than alone."""
    exe, _ = network(4, 8, callers)
    session = exe.session()
    inputs = [torch.rand(1, 3, 8, 8) for _ in range(callers)]
    wanted = [session(x).numpy() for x in inputs]
    right = [0] * callers

    def work(number):
        for _ in range(calls // callers):
            right[number] += np.array_equal(np.from_dlpack(session(inputs[number])), wanted[number])

    seconds = together(work, callers)
    return {"calls": calls, "lost": calls // callers * callers - sum(right), "seconds": seconds}


def throughput(callers, seconds=3.0):
    """Calls per second of a 64-channel network on all cores."""
    exe, x = network(64, 56, available_cores())
    session = exe.session(min(callers, available_cores()))
    session(x)
    counts = [0] * callers
    end = time.perf_counter() + seconds

    def work(number):
        while time.perf_counter() < end:
            session(x)
            counts[number] += 1

    elapsed = together(work, callers)
    return sum(counts) / elapsed


def overhead(calls=5000):
    """Microseconds of one call of a network that does nothing, lowest decile, by way of calling."""
    exe = trivial()
    session = exe.session()
    (x,) = session.empty_inputs()
    x[:] = 0
    misaligned = np.zeros(17, np.float32)[1:].reshape(1, 16)
    main, tensor = exe.machines.new().bound("main"), from_dlpack(x)
    ways = {
        "tvm": lambda: main(tensor),
        "session": lambda: session(x),
        "executable": lambda: exe(x),
        "executable, copied": lambda: exe(misaligned),
    }
    return {name: lowest_decile(call, calls) / 1e3 for name, call in ways.items()}


def lowest_decile(call, calls):
    """Nanoseconds of ``call()``."""
    times = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return float(np.quantile(times, 0.1))


def load_seconds(channels=512):
    """Size of a saved network, and seconds that loading it takes after ``import tvm``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.so"
        network(channels, 8, 1)[0].save(path)
        command = [sys.executable, "-c", LOAD, str(path)]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]
        runs += [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]
        wall, cpu = (min(float(run[i]) for run in runs) for i in range(2))
        return {"megabytes": path.stat().st_size / 1e6, "seconds": wall, "cpu_seconds": cpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="calls in the stress test")
    parser.add_argument("--callers", type=int, default=4, help="threads in the stress test")
    parser.add_argument("--out", type=Path, help="write the JSON here, too")
    arguments = parser.parse_args()
    result = {
        "stress": lost_results(arguments.callers, arguments.calls),
        "microseconds_per_call": overhead(),
        "calls_per_second": {n: throughput(n) for n in (1, 2, 4)},
        "load": load_seconds(),
        "cores": available_cores(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
