"""What a record says about the machine, and the peak that kernels are compared with."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from .. import _compat as tvm_ir
from .. import host
from .._compat import T
from ..schedules.target import CpuTarget
from ..thread_pool import available_cores, use_threads
from ..timing import median_alternating

_PACKAGES = ("apache-tvm", "numpy", "tvm-sparsewino")


def machine(target: CpuTarget) -> dict[str, Any]:
    """The processor, its cores and caches, and the system."""
    return {
        "processor": host.processor(),
        "cores": available_cores(),
        "mcpu": target.mcpu,
        "lanes": target.lanes,
        "l1_bytes": target.l1_bytes,
        "l2_bytes": target.l2_bytes,
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that our kernels need."""
    return host.versions(_PACKAGES)


def fma_peak(target: CpuTarget, chains: int = 12, steps: int = 200_000) -> float:
    """FLOP/s of one core: independent multiply-add chains that stay in registers, measured."""
    lanes = target.lanes
    with tvm_ir.prim_func("peak") as builder:
        x = tvm_ir.arg("x", (lanes,), "float32")
        out = tvm_ir.arg("out", (chains * lanes,), "float32")
        with tvm_ir.local_buffer((chains * lanes,)) as sums:
            every = [tvm_ir.ramp(i * lanes, 1, lanes) for i in range(chains)]
            for at in every:
                T.buffer_store(sums, x[tvm_ir.ramp(0, 1, lanes)], [at])
            with T.serial(0, steps):
                for at in every:
                    scaled = sums[at] * x[tvm_ir.ramp(0, 1, lanes)]
                    T.buffer_store(sums, scaled + tvm_ir.broadcast(0.5, lanes), [at])
            for at in every:
                T.buffer_store(out, sums[at], [at])
    use_threads(1)
    func = tvm_ir.build_module(builder.get(), target.tvm_target())["peak"]
    x = tvm_ir.runtime_tensor(np.full(lanes, 0.5, np.float32))
    out = tvm_ir.runtime_tensor(np.zeros(chains * lanes, np.float32))
    times = median_alternating({"peak": lambda: func(x, out)}, repeats=20)["peak"]
    return 2 * lanes * chains * steps / min(times)
