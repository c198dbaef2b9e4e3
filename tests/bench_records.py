"""Hand-made records of the layer benchmark, whose figures are known."""

from tvm_sparsewino.bench.records import VERSION, races
from tvm_sparsewino.bench.shapes import Layer

LAYER = Layer(64, 64, 56, 56)
OTHER = Layer(128, 128, 28, 28)


def result(name, ms, **facts):
    return {
        "name": name,
        "ms": ms,
        "quartiles": [0.9 * ms, 1.1 * ms],
        "fastest": 0.8 * ms,
        "error": 1e-6,
        **facts,
    }


def peer(name, ms):
    return result(name, ms, peer=True)


def direct(ms, choice="dense_direct"):
    return result("dense_direct", ms, algorithm="dense_direct", m=0, dense_choice=choice)


def dense(m, ms):
    return result(f"dense_winograd F({m},3)", ms, algorithm="dense_winograd", m=m)


def sparse(m, density, ms, chosen=True, **facts):
    name = f"sparse_winograd F({m},3) {density:g}"
    facts |= {"algorithm": "sparse_winograd", "m": m, "asked_density": density}
    return result(name, ms, chosen=chosen, **facts)


def run_line(**facts):
    known = {"seed": 0, "clock": "wall", "structure": "unstructured", "processor": "a CPU"}
    return {"version": VERSION, "kind": "run", "peak_gflops": 100.0, **known, **facts}


def race_line(*results, layer=LAYER, batch=1, threads=1, failed=(), load=1.0):
    return {
        "version": VERSION,
        "kind": "race",
        "layer": {"c": layer.c, "k": layer.k, "h": layer.h, "w": layer.w},
        "batch": batch,
        "threads": threads,
        "chain": 4,
        "load": load,
        "direct_flops": layer.conv(batch).direct_flops,
        "results": list(results),
        "failed": dict(failed),
    }


def raced(*lines):
    return races([run_line(), *lines])
