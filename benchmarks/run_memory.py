"""Memory of compiled networks: of a process that only loads and runs one, and of compiling.

python benchmarks/run_memory.py [--networks resnet18 ...] [--densities 1 0.1]
    [--batch 1] [--threads 1] [--folder FOLDER]

Every network is compiled in one process and run in another. Prints one line of JSON each, in MiB:
"file"; "start", "loaded" and "peak" of the process that runs, three calls included; "model" of the
process that compiles when it holds the network in PyTorch, then its peak after import and
compiling ("compiled") and after writing the file ("saved"). Files in FOLDER are not made anew.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CALLS = 3
MIB = 2**20
COMPILE = """
import json, sys
from pathlib import Path
from tvm_sparsewino import driver
from tvm_sparsewino.bench.network_models import images, make_source
from tvm_sparsewino.host import HELD, PEAK, reset_peak, resident_bytes
from tvm_sparsewino.nn.inference import as_tensors
name, density, path = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
model = make_source(name, [density], [], 224, 0).native[density]
reset_peak()
seen = {"model": resident_bytes(HELD)}
batch, threads = map(int, sys.argv[4:])
mod = driver.import_torch(model, as_tensors(images(batch, 224, 0)))
exe = driver.compile(mod, num_threads=threads)
seen["compiled"] = resident_bytes(PEAK)
exe.save(path)
seen["saved"] = resident_bytes(PEAK)
path.with_suffix(".json").write_text(json.dumps(seen))
"""
# PyTorch, where it is installed, is nothing that a compiled network needs.
RUN = """
import json, sys
sys.modules["torch"] = None
import numpy as np
from tvm_sparsewino.host import HELD, PEAK, reset_peak, resident_bytes
start = resident_bytes(HELD)
from tvm_sparsewino import loading
session = loading.load(sys.argv[1], int(sys.argv[3])).session(1)
loaded = resident_bytes(HELD)
(x,) = session.empty_inputs()
x[:] = np.float32(0.5)
for _ in range(int(sys.argv[2])):
    session(x)
print(json.dumps({"start": start, "loaded": loaded, "peak": resident_bytes(PEAK)}))
"""


def python(program, *arguments):
    """The output of a program in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    networks = ["resnet18", "resnet50", "vgg16", "mobilenet_v2"]
    parser.add_argument("--networks", nargs="+", default=networks)
    parser.add_argument("--densities", nargs="+", type=float, default=[1.0, 0.1])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, batch, threads = (
            arguments.folder or Path(temporary),
            arguments.batch,
            arguments.threads,
        )
        for name in arguments.networks:
            for density in arguments.densities:
                path = folder / f"{name}_{density:g}_batch{batch}.so"
                if not path.exists():
                    python(COMPILE, name, density, path, batch, threads)
                seen = {
                    "network": name,
                    "density": density,
                    "file": path.stat().st_size,
                    **json.loads(python(RUN, path, CALLS, threads)),
                    **json.loads(path.with_suffix(".json").read_text()),
                }
                sizes = {k: round(v / MIB, 1) for k, v in seen.items() if isinstance(v, int)}
                asked = {"batch": batch, "threads": threads}
                print(json.dumps({**seen, **sizes, **asked}), flush=True)


if __name__ == "__main__":
    main()
