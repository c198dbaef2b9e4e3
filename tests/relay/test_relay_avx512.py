"""A network compiled by Relay for skylake-avx512, run function by function by an emulated CPU.

The emulator lives in the environment that has Relax and calls functions as that TVM does; a few
lines of C stand between its calls and those of this TVM.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
from relay_networks import built, close
from tvm.target import Target

from tvm_sparsewino.relay import import_onnx, sparsify

TOOLS = Path(__file__).resolve().parents[1] / "avx512"
CPU = "llvm -mcpu=skylake-avx512"
SHIM = """
#include <stdint.h>
typedef struct {{ int32_t type; uint32_t padding; uint64_t value; }} Any;
int {name}(uint64_t *, int32_t *, int32_t, uint64_t *, int32_t *, void *);
int __tvm_ffi_kernel(void *self, const Any *args, int32_t count, Any *result) {{
    uint64_t values[64], out;
    int32_t codes[64], code;
    (void)self, (void)result;
    for (int i = 0; i < count; ++i)
        values[i] = args[i].value, codes[i] = 7; /* a DLTensor in both */
    return {name}(values, codes, count, &out, &code, 0);
}}
"""


def compiled(lib, folder):
    """The library's code as an object file; gcc links a shim for one function to it."""
    source = lib.get_lib().get_source("asm")
    (folder / "net.s").write_text(re.sub(r"^\s*\.(file|loc)\s.*$", "", source, flags=re.MULTILINE))
    subprocess.run(["gcc", "-c", "-o", folder / "net.o", folder / "net.s"], check=True)
    stand_ins = ["gcc", "-O2", "-shared", "-fPIC", "-o", folder / "stand_ins.so"]
    subprocess.run([*stand_ins, TOOLS / "stand_ins.c"], check=True)


def emulated(python, folder, name, arrays):
    """The last of ``arrays`` when the emulated CPU has run the function ``name``."""
    (folder / "shim.c").write_text(SHIM.format(name=name))
    link = ["gcc", "-O2", "-shared", "-fPIC", "-o", folder / f"{name}.so"]
    subprocess.run([*link, folder / "shim.c", folder / "net.o"], check=True)
    np.savez(folder / f"{name}.npz", **{f"arg_{i}": a for i, a in enumerate(arrays)})
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [python, TOOLS / "run_kernels.py", folder, name]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["error"] is None
    return np.load(folder / f"{name}.npy")


def test_a_network_on_the_emulated_cpu(relax_side, relax_python, tmp_path):
    mod, plan = sparsify(import_onnx(relax_side.path("winograd")), target=CPU)
    assert all(layer.algorithm != "left" for layer in plan)
    lib = built(mod, target=Target(CPU))
    compiled(lib, tmp_path)
    assert re.search(r"vfmadd\S+\s.*%zmm", (tmp_path / "net.s").read_text())
    graph = json.loads(lib.get_graph_json())
    known = {n: a.numpy() for n, a in lib.get_params().items()} | relax_side.inputs("winograd")
    values, shapes = [], graph["attrs"]["shape"][1]
    for node, shape in zip(graph["nodes"], shapes, strict=True):
        operands = [values[source] for source, *_ in node["inputs"]]
        if node["op"] == "null":
            values.append(known[node["name"]])
        elif node["attrs"]["func_name"] == "__nop":
            values.append(operands[0].reshape(shape))
        else:
            output = np.full(shape, np.nan, np.float32)
            name = node["attrs"]["func_name"]
            values.append(emulated(relax_python, tmp_path, name, [*operands, output]))
    close(values[graph["heads"][0][0]], relax_side.outputs("winograd")["relax"], 1e-4)
