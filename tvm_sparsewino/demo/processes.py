"""Times and memory, measured in processes of their own.

A process per number of threads, because both libraries fix their threads when they start; a
process per network for memory, because a peak cannot be taken back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import host
from ..errors import SparseWinoError
from .report import Memory, Timing

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS")


def time_networks(folder: Path, threads: int) -> Timing:
    """Run PyTorch dense, compiled dense and compiled pruned in turn with ``threads`` threads.

    Args:
        folder: holds the compiled networks, see :mod:`tvm_sparsewino.demo.worker`.
        threads: for PyTorch and TVM alike.
    """
    return Timing(threads, **_measure("time", folder, threads))


def memory_of(network: str, folder: Path, threads: int) -> Memory:
    """Peak memory of a process that runs ``network``, "torch" or "compiled"."""
    return Memory(**_measure(network, folder, threads))


def can_measure_memory() -> bool:
    """Whether the system tells a process its peak memory (Linux does)."""
    return host.resident_bytes(host.PEAK) is not None


def _measure(what: str, folder: Path, threads: int) -> dict[str, Any]:
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    command = [sys.executable, "-m", "tvm_sparsewino.demo.worker", what, str(folder), str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise SparseWinoError(f"measuring {what!r} with {threads} threads failed: {last}")
    return json.loads(result.stdout.splitlines()[-1])
