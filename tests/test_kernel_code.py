"""The machine code of the kernels: the hot loops keep their accumulators in registers.

Compiled for other CPUs than the host's as well; nothing here runs.
"""

import numpy as np
import pytest

from tvm_sparsewino import _compat
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.cost import Core, predict
from tvm_sparsewino.cost_direct import predict_direct
from tvm_sparsewino.geometry import kernel_layout, register_tiles
from tvm_sparsewino.geometry_direct import direct_layout
from tvm_sparsewino.hot_loop import inner_loops
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.target import parse_target

SPARSE, DENSE = "sparse_winograd", "dense_winograd"
CPUS = {"znver3": (Core(8, 16), "ymm"), "skylake-avx512": (Core(16, 32, 1 << 20), "zmm")}


def fma_loops(text, register):
    """Inner loops without a branch, with multiply-adds of the register's width: the products."""
    straight = [x for x in inner_loops(text) if not any(i.startswith("j") for i in x.body[:-1])]
    return [x for x in straight if any(f"%{register}" in line for line in x.multiply_adds)]


@pytest.mark.parametrize("algorithm", [SPARSE, DENSE])
@pytest.mark.parametrize("cpu", CPUS)
def test_accumulators_stay_in_registers(cpu, algorithm):
    """In the hot loop of the chosen blocking: every accumulator once per step, and no store."""
    core, register = CPUS[cpu]
    shape = ConvShape(1, 64, 56, 56, 64, 3, (1, 1, 1, 1))
    blocking = predict(shape, algorithm, 2, 0.1, core).blocking
    plan = LayerPlan("c", shape, 0.1, algorithm, 2, *vars(blocking).values())
    weight = np.ones((16, 64, 64), np.float32)
    func = build_conv(
        plan, Epilogue(), pack(weight, plan, core.lanes).specs, core.lanes, core.vector_registers
    )
    module = _compat.build_module(func, parse_target(f"llvm -mcpu={cpu}").tvm_target())
    loops = fma_loops(_compat.inspect_asm(module), register)
    assert loops, "no loop of multiply-adds"
    for loop in loops:
        text = "\n".join(loop.body)
        assert all(x.startswith(f"%{register}") for x in loop.accumulators), text
        assert not loop.vector_stores and not loop.spills, text
    if algorithm == SPARSE:
        layout = kernel_layout(plan, core.lanes)
        accumulators = layout.panels.vectors * plan.rows_at_once
        assert max(len(loop.accumulators) for loop in loops) == accumulators


# Kind of rows, input channels, size, filter: one or several blocks of channels and tile widths.
DIRECT = [
    *(("plain", 64, 64, 3), ("shifted", 64, 14, 3)),
    *(("tiled", 1024, 14, 1), ("tiled", 64, 7, 1), ("tiled", 512, 28, 1)),
]


@pytest.mark.parametrize(("kind", "channels", "size", "r"), DIRECT)
@pytest.mark.parametrize("cpu", CPUS)
def test_direct_accumulators_stay_in_registers(cpu, kind, channels, size, r):
    """In the loops of every tile width: a channel's multiply-adds, or a filter row's, no store.

    The widest tiles, where nearly all of the time goes, touch no stack either, but for 2 stores and
    2 loads per 72 multiply-adds of 3x3 filters on AVX-512. In narrow ones LLVM may move a load so
    far up that it waits there: at most one instruction of 16 is such a move.
    """
    core, register = CPUS[cpu]
    shape = ConvShape(1, channels, size, size, 64, r, (r // 2,) * 4)
    blocking = predict_direct(shape, core).blocking
    plan = LayerPlan("c", shape, 1.0, "dense_direct", 0, *vars(blocking).values())
    layout = direct_layout(plan, core.lanes)
    assert layout.kind == kind
    func = build_conv(
        plan,
        Epilogue(bias=True, activation="relu"),
        (((layout.weights_size,), "float32"),),
        core.lanes,
        core.vector_registers,
    )
    module = _compat.build_module(func, parse_target(f"llvm -mcpu={cpu}").tvm_target())
    runs = register_tiles(layout.vectors, layout.rows_at_once, core.vector_registers)
    loops = fma_loops(_compat.inspect_asm(module), register)
    loops = [x for x in loops if len(x.body) > r * layout.rows_at_once]
    # A sum may change its register on the way.
    widths = [len(x.accumulators) // layout.rows_at_once for x in loops]
    assert set(widths) == {width for _, _, width in runs}
    for loop, width in zip(loops, widths, strict=True):
        text = "\n".join(loop.body)
        assert len(loop.multiply_adds) % (r * width * layout.rows_at_once) == 0
        assert not set(loop.vector_stores) - set(loop.spills), text
        none = width == max(widths) and (cpu, r) != ("skylake-avx512", 3)
        assert len(loop.spills) <= (0 if none else len(loop.body) // 16), text
