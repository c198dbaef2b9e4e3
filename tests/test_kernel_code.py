"""The machine code of the kernels: the hot loops keep their accumulators in registers.

Compiled for other CPUs than the host's as well; nothing here runs.
"""

import re

import numpy as np
import pytest

from tvm_sparsewino import _compat
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.cost import Core, choose_blocking
from tvm_sparsewino.cost_direct import predict_direct
from tvm_sparsewino.geometry import kernel_layout, register_tiles
from tvm_sparsewino.geometry_direct import direct_layout
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.target import parse_target

SPARSE, DENSE = "sparse_winograd", "dense_winograd"
CPUS = {"znver3": (Core(8, 16), "ymm"), "skylake-avx512": (Core(16, 32, 1 << 20), "zmm")}


def fma_loops(text, register):
    """Innermost loops (label ... backward jump, no jump in between) with multiply-adds."""
    lines = [line.strip() for line in text.splitlines()]
    found, label, body = [], None, []
    for line in lines:
        if match := re.match(r"(\.L\w+):", line):
            label, body = match[1], []
        elif re.match(r"j\w+\s", line):
            if label and line.split()[-1] == label:
                found.append(body)
            label, body = None, []
        elif line and not line.startswith((".", "#")):
            body.append(line)
    return [b for b in found if any(f"%{register}" in x for x in b if x.startswith("vfmadd"))]


@pytest.mark.parametrize("algorithm", [SPARSE, DENSE])
@pytest.mark.parametrize("cpu", CPUS)
def test_accumulators_stay_in_registers(cpu, algorithm):
    """In the hot loop of the chosen blocking: every accumulator once per step, and no store."""
    core, register = CPUS[cpu]
    shape = ConvShape(1, 64, 56, 56, 64, 3, (1, 1, 1, 1))
    blocking = choose_blocking(shape, algorithm, 2, 0.1, core)
    plan = LayerPlan("c", shape, 0.1, algorithm, 2, *vars(blocking).values())
    weight = np.ones((16, 64, 64), np.float32)
    func = build_conv(
        plan, Epilogue(), pack(weight, plan, core.lanes).specs, core.lanes, core.vector_registers
    )
    module = _compat.build_module(func, parse_target(f"llvm -mcpu={cpu}").tvm_target())
    loops = fma_loops(_compat.inspect_asm(module), register)
    assert loops, "no loop of multiply-adds"
    for body in loops:
        text = "\n".join(body)
        sums = [x.split(",")[-1].strip() for x in body if x.startswith("vfmadd")]
        assert all(s.startswith(f"%{register}") for s in sums), text
        stores = [x for x in body if x.startswith("vmov") and x.endswith(")")]
        assert not stores, text
        reloads = [x for x in body if x.startswith("v") and "(%rsp" in x]
        assert not reloads, text
    if algorithm == SPARSE:
        layout = kernel_layout(plan, core.lanes)
        accumulators = layout.panels.vectors * plan.rows_at_once
        distinct = [
            len({x.split(",")[-1].strip() for x in body if x.startswith("vfmadd")})
            for body in loops
        ]
        assert max(distinct) == accumulators


@pytest.mark.parametrize(("size", "copies"), [(64, 1), (14, 3)])
@pytest.mark.parametrize("cpu", CPUS)
def test_direct_accumulators_stay_in_registers(cpu, size, copies):
    """In the loops of every tile width: a channel's multiply-adds, or a filter row's, no store.

    The widest tiles, where nearly all of the time goes, touch no stack either. In narrow ones LLVM
    may move a load so far up that it waits there: at most one instruction of 16 is such a move.
    """
    core, register = CPUS[cpu]
    shape = ConvShape(1, 64, size, size, 64, 3, (1, 1, 1, 1))
    blocking = predict_direct(shape, core).blocking
    plan = LayerPlan("c", shape, 1.0, "dense_direct", 0, *vars(blocking).values())
    layout = direct_layout(plan, core.lanes)
    assert layout.copies == copies
    func = build_conv(
        plan,
        Epilogue(bias=True, activation="relu"),
        (((layout.weights_size,), "float32"),),
        core.lanes,
        core.vector_registers,
    )
    module = _compat.build_module(func, parse_target(f"llvm -mcpu={cpu}").tvm_target())
    # Labels of debug information are no places to jump to.
    text = re.sub(r"^\.Ltmp\d+:\n", "", _compat.inspect_asm(module), flags=re.MULTILINE)
    runs = register_tiles(layout.vectors, layout.rows_at_once, core.vector_registers)
    loops = [b for b in fma_loops(text, register) if len(b) > shape.r * layout.rows_at_once]
    assert len(loops) == len(runs)
    for number, (body, (_, _, width)) in enumerate(zip(loops, runs, strict=True)):
        products = sum(x.startswith("vfmadd") for x in body)
        per_tap = layout.rows_at_once * width
        assert products in (layout.taps * per_tap, shape.r * per_tap)
        stack = [x for x in body if x.startswith("v") and "(%rsp" in x]
        stores = [x for x in body if x.startswith("vmov") and x.endswith(")") and "%rsp" not in x]
        assert not stores, "\n".join(body)
        assert len(stack) <= (len(body) // 16 if number else 0), "\n".join(body)
