"""What a measuring process runs: ``python -m tvm_sparsewino.demo.worker WHAT FOLDER THREADS``.

WHAT is "time", "torch" or "compiled". FOLDER holds the compiled networks ``DENSE`` and ``PRUNED``.
The last line printed is JSON: the fields of a Timing or of a Memory.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import driver, host
from ..nn.inference import numpy_function, set_num_threads
from ..timing import median_alternating
from .images import PHOTOS, photo, with_noise
from .networks import dense_model, level

DENSE = "ffdnet_dense.so"
PRUNED = "ffdnet_pruned.so"
SIGMA = 25
ROUNDS = 7
_RUNS_FOR_MEMORY = 3


def measure_time(folder: Path, threads: int, inputs: tuple) -> dict[str, float]:
    """Median milliseconds of the three networks, called in turn."""
    torch = numpy_function(dense_model())
    dense, pruned = (driver.load(folder / name, threads) for name in (DENSE, PRUNED))
    functions = {
        "ms_torch": lambda: torch(*inputs),
        "ms_dense": lambda: dense(*inputs),
        "ms_sparse": lambda: pruned(*inputs),
    }
    seconds = median_alternating(functions, ROUNDS)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def measure_memory(build: Callable[[], Callable[..., Any]], inputs: tuple) -> dict[str, float]:
    """Memory in MiB now, and at the peak of building a network and running it.

    Raises:
        LookupError: the system does not tell.
    """
    start = _mebibytes(host.HELD)
    network = build()
    for _ in range(_RUNS_FOR_MEMORY):
        network(*inputs)
    return {"start": start, "peak": _mebibytes(host.PEAK)}


def _mebibytes(what: str) -> float:
    known = host.resident_bytes(what)
    if known is None:
        raise LookupError(f"the system does not tell {what}")
    return known / 2**20


def main(arguments: list[str]) -> None:
    """Measure and print."""
    what, folder, threads = arguments[0], Path(arguments[1]), int(arguments[2])
    set_num_threads(threads)
    inputs = with_noise(photo(PHOTOS[0]), SIGMA), level(SIGMA)
    if what == "time":
        result = measure_time(folder, threads, inputs)
    elif what == "torch":
        result = measure_memory(lambda: numpy_function(dense_model()), inputs)
    else:
        result = measure_memory(lambda: driver.load(folder / PRUNED, threads), inputs)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
