"""The same kernels in both lines: layers of the benchmark, run by Relax and by Relay.

``python benchmarks/relay_parity.py RELAY_PYTHON [LAYER...]`` with the environment that has Relax;
RELAY_PYTHON is that of ``make test-relay``. Each line times its own code in a process of its own,
in turns, so that both see the same load; CPU time of one thread, the fastest of all calls. Prints
one line of JSON per layer with the ratio. ``--rewrite`` prints the CPU time in which a network of
the size of ResNet-50 is rewritten by this interpreter's TVM, which must have Relay.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SHARE = 0.1  # of nonzeros
ROUNDS, CALLS = 8, 5
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"}
# Channels in and out, height and width, as in VGG-16 and ResNet.
LAYERS = {
    "vgg-64x224": (64, 64, 224),
    "vgg-128x112": (128, 128, 112),
    "vgg-256x56": (256, 256, 56),
    "vgg-512x28": (512, 512, 28),
    "vgg-512x14": (512, 512, 14),
    "resnet-64x56": (64, 64, 56),
    "resnet-128x28": (128, 128, 28),
    "resnet-256x14": (256, 256, 14),
    "resnet-512x7": (512, 512, 7),
}


def kernel(name, density):
    """A function that runs the layer once, with bias and ReLU, as the planner has it."""
    from tvm_sparsewino import _compat
    from tvm_sparsewino.config import CompileConfig, ConvShape, Epilogue
    from tvm_sparsewino.packing import pack
    from tvm_sparsewino.planner import plan_winograd
    from tvm_sparsewino.schedules.build import build_conv
    from tvm_sparsewino.schedules.target import parse_target

    rng, host = np.random.default_rng(0), parse_target("native")
    c, k, size = LAYERS[name]
    shape = ConvShape(1, c, size, size, k, 3, (1, 1, 1, 1))
    u = rng.standard_normal((36, k, c), np.float32)
    u[rng.random(u.shape) >= density] = 0
    plan = plan_winograd(name, shape, u, 4, host, CompileConfig())
    packed, epilogue = pack(u, plan, host.lanes), Epilogue(bias=True, activation="relu")
    func = build_conv(plan, epilogue, packed.specs, host.lanes, host.vector_registers)
    run = _compat.build_module(func, host.tvm_target())[func.attrs["global_symbol"]]
    x = rng.standard_normal((1, c, size, size), np.float32)
    arrays = [x, *packed.arrays, np.ones(k, np.float32), np.zeros((1, k, size, size), np.float32)]
    tensors = [_compat.runtime_tensor(array) for array in arrays]
    return (lambda: run(*tensors)), lambda: float(np.abs(tensors[-1].numpy()).sum())


def repair():
    """Step around the defects of the build that the tests use; any other stays as it is."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "relay" / "hhb"))
    import hhb_fixes
    import tvm

    hhb_fixes.apply()
    tvm.transform.PassContext(opt_level=3).__enter__()


def serve(density):
    """Answer layers on stdin with CPU seconds and a sum of the outputs."""
    from tvm_sparsewino.timing import fastest

    if "SPARSEWINO_RELAY" in os.environ:
        repair()
    made = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in made:
            made[name] = kernel(name, density)
        run, total = made[name]
        print(json.dumps([fastest({"run": run}, CALLS)["run"], total()]), flush=True)


def race(relay_python, names, density):
    environments = ({}, {"SPARSEWINO_RELAY": "1"})
    pythons = (sys.executable, relay_python)
    servers = [
        subprocess.Popen(
            [python, __file__, "--serve", "--density", str(density)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD, **extra},
        )
        for python, extra in zip(pythons, environments, strict=True)
    ]
    for name in names:
        best, sums = [np.inf, np.inf], [0.0, 0.0]
        for _ in range(ROUNDS):
            for i, server in enumerate(servers):
                server.stdin.write(f"{name}\n")
                server.stdin.flush()
                seconds, sums[i] = json.loads(server.stdout.readline())
                best[i] = min(best[i], seconds)
        if abs(sums[0] - sums[1]) > 1e-5 * sums[0]:
            raise SystemExit(f"{name}: the outputs differ, {sums}")
        relax, relay = best
        result = {"layer": name, "density": density, "relax_ms": 1e3 * relax}
        print(json.dumps({**result, "relay_ms": 1e3 * relay, "relay_to_relax": relay / relax}))
    for server in servers:
        server.stdin.close()
        server.wait()


def rewrite():
    """CPU seconds in which a network of the size of ResNet-50, pruned to 10 %, is rewritten."""
    repair()
    from tvm.relay import testing

    from tvm_sparsewino.relay import sparsify

    mod, params = testing.resnet.get_workload(num_layers=50, dtype="float32")
    rng, pruned = np.random.default_rng(0), {}
    for name, value in params.items():
        array = value.numpy()
        kept = rng.random(array.shape) < SHARE if array.ndim == 4 else True
        pruned[name] = np.where(kept, array, 0).astype(array.dtype)
    start = time.process_time()
    _, plan = sparsify(mod, pruned, target="llvm -mcpu=skylake-avx512")
    seconds = time.process_time() - start
    algorithms = [layer.algorithm for layer in plan]
    counts = {name: algorithms.count(name) for name in sorted(set(algorithms))}
    print(json.dumps({"rewritten_in_cpu_s": seconds, "convolutions": len(plan), "plans": counts}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("relay_python", nargs="?", default="")
    parser.add_argument("layers", nargs="*", default=[])
    parser.add_argument("--density", type=float, default=SHARE)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rewrite", action="store_true")
    given = parser.parse_args()
    if given.serve:
        serve(given.density)
    elif given.rewrite:
        rewrite()
    else:
        race(given.relay_python, given.layers or list(LAYERS), given.density)
