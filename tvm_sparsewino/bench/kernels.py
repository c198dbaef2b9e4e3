"""Our kernels as contestants: packed, compiled, checked, ready to be timed."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from .. import _compat as tvm_ir
from ..config import ConvShape, Epilogue, LayerPlan
from ..cook_toom import cook_toom
from ..packing import pack
from ..schedules.build import build_conv
from ..schedules.target import CpuTarget
from ..thread_pool import use_threads
from .chain import Chain, checked_images
from .exact import direct_conv, winograd_conv

EPILOGUE = Epilogue(bias=True, activation="relu")
LONG_CALL = 0.2  # seconds after which a call has warmed itself up
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Maps:
    """The input and two outputs of a shape, which all contestants of a race write in turn."""

    def __init__(self, shape: ConvShape, x: np.ndarray) -> None:
        self.input = tvm_ir.runtime_tensor(x)
        empty = np.zeros((shape.n, shape.k, shape.oh, shape.ow), np.float32)
        self.outputs = [tvm_ir.runtime_tensor(empty) for _ in range(2)]


class KernelChain:
    """A chain of our kernels with their operands in place.

    Args:
        plan: of every convolution of the chain.
        chain: weights, coefficients or, for a direct kernel, filters; and biases.
        maps: the chain's input, and room for its outputs.
        target: this machine.
        threads: threads of a call.

    Attributes:
        packed: the weights of every convolution.
        build_seconds: packing one weight, and compiling the kernel if that was not done before.
    """

    settle = 0.002  # TVM's workers spin a thousand times, see thread_pool

    def __init__(
        self, plan: LayerPlan, chain: Chain, maps: Maps, target: CpuTarget, threads: int
    ) -> None:
        self.plan, self.threads = plan, threads
        start = time.perf_counter()
        self.packed = [pack(weight, plan, plan.lanes_on(target.lanes)) for weight in chain.weights]
        self.build_seconds = (time.perf_counter() - start) / len(self.packed)
        self._steps = []
        value = maps.input
        for index, (packed, bias) in enumerate(zip(self.packed, chain.biases, strict=True)):
            start = time.perf_counter()
            function = _build(plan, packed.specs, target)
            self.build_seconds += time.perf_counter() - start
            operands = [tvm_ir.runtime_tensor(a) for a in (*packed.arrays, bias)]
            out = maps.outputs[index % 2]
            self._steps.append((function, [value, *operands, out]))
            value = out

    @property
    def single(self) -> tuple[Any, ...]:
        """The operands of the first convolution."""
        return tuple(self._steps[0][1])

    def call(self) -> None:
        """Run the chain once."""
        for function, operands in self._steps:
            function(*operands)

    def outputs(self) -> Iterator[np.ndarray]:
        """Run the chain once, giving the output of every convolution."""
        use_threads(self.threads)
        for function, operands in self._steps:
            function(*operands)
            yield operands[-1].numpy()

    def seconds(self, repeats: int, limit: float, clock: str) -> list[float]:
        """As the peers' :func:`timed`: one call to warm up, which counts if it is long."""
        use_threads(self.threads)
        now = CLOCKS[clock]
        start = now()
        self.call()
        first = now() - start
        times = [first] if first > LONG_CALL else []
        while len(times) < repeats and (not times or sum(times) < limit):
            start = now()
            self.call()
            times.append(now() - start)
        return times


@lru_cache(maxsize=512)  # races with other threads run the same kernels
def _build(plan: LayerPlan, specs: tuple[Any, ...], target: CpuTarget) -> Any:
    lanes = plan.lanes_on(target.lanes)
    func = build_conv(plan, EPILOGUE, specs, lanes, target.vector_registers)
    module = tvm_ir.build_module(func, target.tvm_target())
    return module[str(func.attrs["global_symbol"])]


def checked(kernel: KernelChain, chain: Chain) -> tuple[float, int]:
    """Run the chain; largest error of any convolution, and a checksum of the last output.

    Every convolution is compared with float64 on the input that it really had, relative to its
    largest output. The checksum tells whether runs with other threads have the same bits.
    """
    images, worst = checked_images(kernel.plan.conv.n), 0.0
    given, output = chain.x[images], chain.x
    exact = _exact(kernel.plan)
    for weight, bias, out in zip(chain.weights, chain.biases, kernel.outputs(), strict=True):
        output = out
        want = np.maximum(exact(given, weight, bias), 0)
        worst = max(worst, float(np.abs(out[images] - want).max() / np.abs(want).max()))
        given = out[images]
    return worst, zlib.crc32(np.ascontiguousarray(output).tobytes())


def _exact(plan: LayerPlan) -> Callable[..., np.ndarray]:
    if not plan.m:
        return direct_conv
    return lambda x, u, bias: winograd_conv(x, u, bias, cook_toom(plan.m, 3))
