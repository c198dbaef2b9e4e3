"""Kernels cut down to their inner loop: one coordinate, one slice of rows, inputs that stay in L1.

The product of F(1, 1) has one coordinate and needs no transforms, and its inner loop is that of
every other tile. Rows of a sparse product are made long by walking the same few inputs again and
again; dense ones and direct convolutions have more input channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino._compat import T, tir
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.geometry_direct import direct_layout
from tvm_sparsewino.packing import pack
from tvm_sparsewino.reference import conv2d
from tvm_sparsewino.schedules.blocks import Blocks
from tvm_sparsewino.schedules.dense_gemm import emit_dense_gemm
from tvm_sparsewino.schedules.direct_conv import emit_direct_conv
from tvm_sparsewino.schedules.epilogue import EpilogueOperands
from tvm_sparsewino.schedules.sparse_gemm import emit_sparse_gemm
from tvm_sparsewino.schedules.structured_gemm import emit_structured_gemm
from tvm_sparsewino.schedules.target import CpuTarget

CALLS = 100  # of the kernel, inside one call from Python
INPUTS = 16  # channels that a sparse row walks
TAPS = 9  # of a direct convolution
TOLERANCE = 1e-5  # max error over max |output|: sums of at most 512 products
SEED = 0


@dataclass(frozen=True)
class Variant:
    """One inner loop, with ``rows`` x ``vectors`` accumulators."""

    algorithm: str
    rows: int
    vectors: int
    structure: str = "unstructured"

    @property
    def name(self) -> str:
        kind = self.algorithm if self.structure == "unstructured" else self.structure
        return f"{kind} {self.rows}x{self.vectors}"

    @property
    def is_direct(self) -> bool:
        return self.algorithm == "dense_direct"

    def plan(self, lanes: int, channels: int, slices: int) -> LayerPlan:
        """One panel and ``slices`` times ``rows`` output channels."""
        r, padding = (3, (1, 1, 1, 1)) if self.is_direct else (1, (0, 0, 0, 0))
        shape = ConvShape(1, channels, 1, self.vectors * lanes, self.rows * slices, r, padding)
        m, sizes = 0 if self.is_direct else 1, (self.vectors, 0, 0, self.rows)
        return LayerPlan("loop", shape, 1.0, self.algorithm, m, *sizes, structure=self.structure)

    @property
    def sizes(self) -> list[tuple[int, int, int]]:
        """Kernels whose times add up to nothing but loop: sign, channels and slices of each.

        Longer rows minus shorter ones take the start and the end of a row away. Those of a direct
        convolution copy more inputs too, which many slices share and one does not.
        """
        if self.is_direct:
            return [(1, 24, 4), (-1, 8, 4), (-1, 24, 1), (1, 8, 1)]
        longer = 128
        if self.algorithm == "sparse_winograd":  # offsets and values fill 8 KiB at most
            longer = min(512, 1024 // self.rows // 16 * 16)
        return [(1, longer, 1), (-1, longer // 2, 1)]

    @property
    def multiply_adds(self) -> int:
        """Vector multiply-adds of the kernels of ``sizes``, added up with their signs."""
        steps = sum(sign * channels * slices for sign, channels, slices in self.sizes)
        return steps * self.rows * self.vectors * (TAPS if self.is_direct else 1)


class Kernel:
    """A variant compiled for a target; runs ``CALLS`` times when called."""

    def __init__(self, variant: Variant, target: CpuTarget, channels: int, slices: int) -> None:
        self._rng = np.random.default_rng(SEED)
        plan = variant.plan(target.lanes, channels, slices)
        made = self._direct(plan, target) if variant.is_direct else self._product(plan, target)
        func, self._arrays, self._expected = made
        self._module = tvm_ir.build_module(func, target.tvm_target())

    @property
    def assembly(self) -> str:
        return tvm_ir.inspect_asm(self._module)

    def prepare(self) -> Callable[[], None]:
        """What runs the kernel; its answer has been checked.

        Raises:
            SystemExit: the answer is wrong.
        """
        function = self._module["loop"]
        tensors = [tvm_ir.runtime_tensor(array) for array in self._arrays]
        function(*tensors)
        output = tensors[-1].numpy().ravel()[: self._expected.size]
        error = np.abs(output - self._expected.ravel()).max() / np.abs(self._expected).max()
        if not error <= TOLERANCE:
            raise SystemExit(f"wrong answer: error {error:.1e} of the maximum")
        return lambda: function(*tensors)

    def _random(self, *shape: int) -> np.ndarray:
        return self._rng.standard_normal(shape).astype(np.float32)

    def _product(self, plan: LayerPlan, target: CpuTarget) -> tuple[tir.PrimFunc, list, Any]:
        layout, shape = kernel_layout(plan, target.lanes), plan.conv
        weight, inputs = self._random(1, shape.k, shape.c), self._random(shape.c, shape.w)
        arrays = list(pack(weight, plan, target.lanes).arrays)
        if plan.algorithm == "sparse_winograd":
            offsets = arrays[2] - layout.v.channel_offset(0)
            arrays[2] -= offsets - offsets % (INPUTS * layout.panels.stride)
            inputs = inputs[np.arange(shape.c) % INPUTS]
        with tvm_ir.prim_func("loop") as builder:
            packed = [
                tvm_ir.arg(f"packed_{i}", a.shape, a.dtype.name) for i, a in enumerate(arrays)
            ]
            v = tvm_ir.arg("v", (layout.v.size,), "float32")
            product = tvm_ir.arg("product", (layout.product.size,), "float32")
            registers = target.vector_registers
            with T.serial(0, CALLS):
                if plan.structure != "unstructured":
                    emit_structured_gemm(packed, v, product, Blocks(0), plan, layout, registers)
                elif plan.algorithm == "sparse_winograd":
                    emit_sparse_gemm(packed, v, product, Blocks(0), plan, layout, registers)
                else:
                    emit_dense_gemm(packed, v, product, Blocks(0), plan, layout, registers)
        v = np.zeros(layout.v.size, np.float32)
        v[layout.v.channel_offset(0) :][: inputs.size] = inputs.ravel()
        arrays += [v, np.zeros(layout.product.size, np.float32)]
        return builder.get(), arrays, weight[0].astype(np.float64) @ inputs

    def _direct(self, plan: LayerPlan, target: CpuTarget) -> tuple[tir.PrimFunc, list, Any]:
        layout, shape = direct_layout(plan, target.lanes), plan.conv
        weight, x = self._random(shape.k, shape.c, 3, 3), self._random(1, shape.c, 1, shape.w)
        packed = pack(weight, plan, target.lanes).arrays
        out = np.zeros((1, shape.k, shape.oh, shape.ow), np.float32)
        with tvm_ir.prim_func("loop") as builder:
            data = tvm_ir.arg("data", x.shape, "float32")
            values = tvm_ir.arg("values", packed[0].shape, "float32")
            output = tvm_ir.arg("output", out.shape, "float32")
            epilogue = EpilogueOperands(Epilogue())
            with T.serial(0, CALLS):
                emit_direct_conv(data, values, output, layout, epilogue, target.vector_registers)
        return builder.get(), [x, *packed, out], conv2d(x, weight, None, shape.padding)


def clock_kernel(target: CpuTarget) -> tuple[Callable[[], None], int]:
    """A call that takes a known number of cycles, and the number.

    A chain of multiply-adds, each of which waits for the one before: four cycles on every core that
    there is code for here.
    """
    lanes, unrolled, steps, latency = target.lanes, 8, 8_000, 4
    whole = tvm_ir.ramp(0, 1, lanes)
    with tvm_ir.prim_func("clock") as builder:
        x = tvm_ir.arg("x", (lanes,), "float32")
        out = tvm_ir.arg("out", (lanes,), "float32")
        with tvm_ir.local_buffer((lanes,)) as chain:
            T.buffer_store(chain, x[whole], [whole])
            with T.serial(0, steps):
                for _ in range(unrolled):
                    value = chain[whole] * x[whole] + tvm_ir.broadcast(0.5, lanes)
                    T.buffer_store(chain, value, [whole])
            T.buffer_store(out, chain[whole], [whole])
    function = tvm_ir.build_module(builder.get(), target.tvm_target())["clock"]
    x, out = (tvm_ir.runtime_tensor(np.full(lanes, 0.5, np.float32)) for _ in range(2))
    return lambda: function(x, out), latency * unrolled * steps
