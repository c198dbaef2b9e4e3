"""Run compiled kernels in the emulator: ``python run_kernels.py FOLDER [NAME...]``.

Reads ``NAME.so``, ``NAME.npz`` (the arguments arg_0, arg_1, ...) and ``stand_ins.so``, writes the
output as ``NAME.npy``, and prints a line of JSON per kernel, with the error if there was one.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

import numpy as np


def main(folder, names):
    # Before the emulator is imported: it needs names from there.
    stand_ins = ctypes.CDLL(str(folder / "stand_ins.so"), mode=ctypes.RTLD_GLOBAL)
    from emulator import Emulator, GuestFault
    from tvm_call import KernelError, call

    emulator = Emulator()
    for name in names:
        arguments = np.load(folder / f"{name}.npz")
        arrays = [arguments[f"arg_{i}"] for i in range(len(arguments))]
        library = ctypes.CDLL(str(folder / f"{name}.so"))
        error = None
        try:
            output = call(emulator, library, "kernel", arrays, stand_ins)
            np.save(folder / f"{name}.npy", output)
        except (GuestFault, KernelError) as caught:
            error = f"{type(caught).__name__}: {caught}"
        print(json.dumps({"name": name, "error": error}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    os._exit(0)  # the emulator's library crashes in the interpreter's own end
